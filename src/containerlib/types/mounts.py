# SPDX-License-Identifier: Apache-2.0
"""
Volumes and tmpfs mounts, from the strings and mappings of docker and Compose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from .quantities import invalid, parse_bytes, parse_integer, wrong_type
from .values import MOUNT_OPTIONS, PROPAGATIONS, Mount

VolumeTarget = str | os.PathLike[str] | tuple[str, str] | Mapping[str, Any]
Volumes = Mapping[str | os.PathLike[str], VolumeTarget] | Iterable[str | Mount | Mapping[str, Any]]
Tmpfs = str | Iterable[str] | Mapping[str, str | None]

_VOLUME_NAME: Final = r"(?a)[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}"
_FORMS: Final = "'source:target', 'source:target:ro', a path for an anonymous volume, or a Mount"
_WORDS: Final = f"ro, rw, {', '.join(MOUNT_OPTIONS)}, nocopy, rbind, bind, {', '.join(PROPAGATIONS)}"
_CONSISTENCY: Final = frozenset({"consistent", "cached", "delegated", "default"})

#: Files below /proc that lxcfs and CRIU put there; nothing else may cover it.
_PROC_FILES: Final = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)

#: What a tmpfs has unless its options say otherwise, as in Docker.
TMPFS_FLAGS: Final = ("nosuid", "nodev", "noexec")
_TMPFS_WORDS: Final = {
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
}
_TMPFS_TIMES: Final = frozenset({"noatime", "relatime", "strictatime"})
_TMPFS_KEYS: Final = frozenset({"uid", "gid", "nr_inodes"})
_TMPFS_PAIR: Final = r"(?:uid|gid|nr_inodes)=[0-9]{1,10}|size=(?:[1-9][0-9]?|100)%"


def parse_volumes(value: Volumes) -> tuple[Mount, ...]:
    """
    Mounts from ``{"source": "/target"}``, ``{"source": ("/target", "ro")}``, a
    list of ``"source:target:options"``, Mount values and Compose's long form.
    """
    if isinstance(value, (str, bytes, Mount)) or not isinstance(value, Iterable):
        raise wrong_type("volumes", value, "a list or a dictionary")
    if isinstance(value, Mapping):
        mounts = tuple(_from_pair(source, target) for source, target in value.items())
    else:
        mounts = tuple(_from_item(item) for item in value)
    return mounts


def _from_item(item: object) -> Mount:
    if isinstance(item, str):
        return parse_volume(item)
    if isinstance(item, Mount):
        return attrs.evolve(item, options=_tmpfs_flags(item.options)) if item.type == "tmpfs" else item
    if isinstance(item, Mapping):
        return _from_long_form(item)
    raise wrong_type("volumes", item, _FORMS)


def _from_pair(source: object, target: object) -> Mount:
    options: object = ""
    if isinstance(target, Mapping):  # docker-py: {"bind": "/in", "mode": "ro"}
        unknown = set(target) - {"bind", "mode"}
        if unknown or "bind" not in target:
            raise invalid("volumes", dict(target), "{'bind': '/target', 'mode': 'ro'}")
        options = target.get("mode") or ""
        target = target["bind"]
    elif isinstance(target, (tuple, list)):
        if len(target) != 2:
            raise invalid("volumes", target, "(target, options) like ('/in', 'ro')")
        target, options = target
    if not isinstance(source, (str, os.PathLike)):
        raise wrong_type("volumes", source, "a path or a volume's name as the source")
    if not isinstance(target, (str, os.PathLike)):
        raise wrong_type("volumes", target, "a path or (path, options) as the target")
    if not isinstance(options, str):
        raise wrong_type("volumes", options, "options as a string like 'ro,z'")
    return _mount(
        source, os.fspath(target), options, shown=f"{os.fspath(source)}:{os.fspath(target)}:{options}"
    )


def parse_volume(text: str) -> Mount:
    """
    A mount from ``"source:target:options"``, or an anonymous volume from
    ``"/target"``.
    """
    if not isinstance(text, str):
        raise wrong_type("volumes", text, _FORMS)
    parts = text.split(":")
    if len(parts) == 1 and text.startswith("/"):
        return _checked(Mount(type="volume", target=text), text)
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise invalid("volumes", text, _FORMS)
    return _mount(parts[0], parts[1], parts[2] if len(parts) == 3 else "", shown=text)


def _mount(source: str | os.PathLike[str], target: str, options: str, *, shown: str) -> Mount:
    kind, origin = _source(source, shown)
    read_only: bool | None = None
    propagation: str | None = None
    recursive = True
    nocopy = False
    kept: list[str] = []
    for word in options.split(",") if options else ():
        if word in ("ro", "rw"):
            if read_only not in (None, word == "ro"):
                raise invalid("volumes", shown, "either ro or rw")
            read_only = word == "ro"
        elif word in PROPAGATIONS and kind == "bind":
            if propagation not in (None, word):
                raise invalid("volumes", shown, "one propagation")
            propagation = word
        elif word in MOUNT_OPTIONS:
            kept.append(word)
        elif word == "nocopy" and kind == "volume":
            nocopy = True
        elif word in ("bind", "rbind") and kind == "bind":
            recursive = word == "rbind"
        elif word in ("bind-recursive=enabled", "bind-recursive=disabled") and kind == "bind":
            recursive = word.endswith("enabled")
        elif word not in _CONSISTENCY:
            raise invalid("volumes", shown, f"options of {_WORDS} that suit a {kind} mount")
    mount = Mount(
        type="bind" if kind == "bind" else "volume",
        source=origin,
        target=target,
        read_only=bool(read_only),
        propagation=propagation,
        options=tuple(kept),
        nocopy=nocopy,
        recursive=recursive,
    )
    return _checked(mount, shown)


def _source(source: str | os.PathLike[str], shown: str) -> tuple[str, str]:
    """
    Tell a host path from a volume's name.
    """
    text = os.fspath(source)
    if not isinstance(text, str):
        raise wrong_type("volumes", source, "a path as text")
    if "\0" in text or not text:
        raise invalid("volumes", shown, "a host path or a volume's name as the source")
    if text.startswith("/"):
        return "bind", text
    if text == "~" or text.startswith("~/"):
        return "bind", os.path.abspath(os.path.expanduser(text))
    if not isinstance(source, str) or text.startswith("."):
        return "bind", os.path.abspath(text)
    if not re.fullmatch(_VOLUME_NAME, text):
        raise invalid(
            "volumes",
            shown,
            "an absolute path, a path that starts with './', or a volume's name of [a-zA-Z0-9_.-]",
        )
    return "volume", text


def _checked(mount: Mount, shown: object) -> Mount:
    check_target(mount.target, "volumes", shown)
    return mount


def check_target(target: str, option: str, shown: object) -> None:
    """
    Refuse to cover the root, or /proc, which would hide what is masked there.
    """
    if target == "/":
        raise invalid(option, shown, "a target below the container's root")
    if target == "/proc" or (target.startswith("/proc/") and target not in _PROC_FILES):
        raise invalid(option, shown, "a target outside /proc")


def _from_long_form(item: Mapping[Any, Any]) -> Mount:
    """
    Read Compose's long form: type, source, target, read_only, bind, volume, tmpfs.
    """
    shown = dict(item)
    unknown = set(item) - {"type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency"}
    kind = item.get("type", "volume")
    if unknown or "target" not in item or kind not in ("bind", "volume", "tmpfs"):
        raise invalid(
            "volumes", shown, "type, source, target, read_only, bind, volume, tmpfs of Compose's long form"
        )
    bind, volume, tmpfs = (_section(item, name) for name in ("bind", "volume", "tmpfs"))
    source = item.get("source")
    options: tuple[str, ...] = ()
    if kind == "tmpfs":
        options = TMPFS_FLAGS
    elif source is not None:
        if not isinstance(source, (str, os.PathLike)):
            raise wrong_type("volumes", source, "a path or a volume's name as the source")
        found, source = _source(source, str(shown))
        if found != kind:
            raise invalid("volumes", shown, f"a source that suits a {kind} mount")
    if selinux := bind.get("selinux"):
        options = (str(selinux),)
    size, mode = tmpfs.get("size"), tmpfs.get("mode")
    target = item["target"]
    if not isinstance(target, (str, os.PathLike)):
        raise wrong_type("volumes", target, "a path as the target")
    mount = Mount(
        type=kind,
        source=source,
        target=target,
        read_only=_flag(item, "read_only"),
        propagation=bind.get("propagation"),
        options=options,
        tmpfs_size=None if size is None else parse_bytes(size, option="volumes"),
        tmpfs_mode=None if mode is None else parse_integer("volumes", mode, maximum=0o7777),
        subpath=volume.get("subpath"),
        nocopy=_flag(volume, "nocopy"),
        create_source=_flag(bind, "create_host_path"),
        recursive=bind.get("recursive", "enabled") != "disabled",
    )
    return _checked(mount, shown)


_SECTIONS: Final = {
    "bind": frozenset({"propagation", "create_host_path", "selinux", "recursive"}),
    "volume": frozenset({"nocopy", "subpath"}),
    "tmpfs": frozenset({"size", "mode"}),
}
_SECTION_VALUES: Final = {
    "propagation": PROPAGATIONS,
    "selinux": ("z", "Z"),
    "recursive": ("enabled", "disabled"),
}


def _section(item: Mapping[Any, Any], name: str) -> Mapping[str, Any]:
    section = item.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise wrong_type("volumes", section, f"a dictionary as {name}")
    if set(section) - _SECTIONS[name] or item.get("type", "volume") != name:
        raise invalid(
            "volumes", {name: dict(section)}, f"{', '.join(sorted(_SECTIONS[name]))} for a {name} mount"
        )
    for key, accepted in _SECTION_VALUES.items():
        if section.get(key) is not None and section[key] not in accepted:
            raise invalid("volumes", {key: section[key]}, f"one of {', '.join(accepted)}")
    if section.get("subpath") is not None and not isinstance(section["subpath"], str):
        raise wrong_type("volumes", section["subpath"], "a path as the subpath")
    return section


def _flag(section: Mapping[Any, Any], name: str) -> bool:
    value = section.get(name, False)
    if not isinstance(value, bool):
        raise wrong_type("volumes", value, f"True or False as {name}")
    return value


def parse_tmpfs(value: Tmpfs) -> tuple[Mount, ...]:
    """
    Mounts from ``"/run"``, ``"/run:size=64m,mode=1777"``, a list of those, or
    ``{"/run": "size=64m"}``.
    """
    if isinstance(value, str):
        return (_tmpfs(value),)
    if isinstance(value, Mapping):
        mounts = []
        for target, options in value.items():
            if not isinstance(target, str):
                raise wrong_type("tmpfs", target, "a path")
            if not isinstance(options, (str, type(None))):
                raise wrong_type("tmpfs", options, "options as a string like 'size=64m,mode=1777'")
            mounts.append(_tmpfs_mount(target, options or "", shown=f"{target}:{options}"))
        return tuple(mounts)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type("tmpfs", value, "a string, a list or a dictionary")
    return tuple(_tmpfs(item) for item in value)


def _tmpfs(text: object) -> Mount:
    if not isinstance(text, str):
        raise wrong_type("tmpfs", text, "a string like '/run:size=64m'")
    target, _, options = text.partition(":")
    return _tmpfs_mount(target, options, shown=text)


def _tmpfs_mount(target: str, options: str, *, shown: str) -> Mount:
    size: int | None = None
    mode: int | None = None
    read_only = False
    words: list[str] = []
    for word in options.split(",") if options else ():
        key, equals, value = word.partition("=")
        if word in ("ro", "rw"):
            read_only = word == "ro"
        elif key == "size" and value.endswith("%"):
            words.append(f"size={parse_integer('tmpfs', value[:-1], minimum=1, maximum=100, shown=shown)}%")
        elif key == "size" and equals:
            size = parse_bytes(value, option="tmpfs")
        elif key == "mode" and equals:
            if not re.fullmatch("[0-7]{1,5}", value) or int(value, 8) > 0o7777:
                raise invalid("tmpfs", shown, "an octal mode like 1777")
            mode = int(value, 8)
        elif key in _TMPFS_KEYS and equals:
            words.append(f"{key}={parse_integer('tmpfs', value, maximum=0xFFFFFFFE, shown=shown)}")
        else:
            words.append(word)
    mount = Mount(
        type="tmpfs",
        target=target,
        read_only=read_only,
        options=_tmpfs_flags(words),
        tmpfs_size=size,
        tmpfs_mode=mode,
    )
    check_target(mount.target, "tmpfs", shown)
    return mount


def _tmpfs_flags(words: Iterable[str]) -> tuple[str, ...]:
    """
    Docker's defaults with the caller's words applied: ``exec`` takes ``noexec``
    away and stands in its place.
    """
    flags = dict.fromkeys(TMPFS_FLAGS)
    for word in words:
        if word in _TMPFS_WORDS:
            flags.pop(_TMPFS_WORDS[word], None)
            flags[word] = None
        elif word in TMPFS_FLAGS or word in _TMPFS_TIMES or re.fullmatch(_TMPFS_PAIR, word):
            flags[word] = None
        else:
            accepted = ", ".join(["ro", "rw", "size=", "mode=", *sorted(f"{key}=" for key in _TMPFS_KEYS)])
            raise invalid(
                "tmpfs",
                word,
                f"{accepted}, [no]exec, [no]suid, [no]dev, {', '.join(sorted(_TMPFS_TIMES))}",
            )
    return tuple(flags)
