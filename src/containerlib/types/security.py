# SPDX-License-Identifier: Apache-2.0
"""
Users, namespaces, capabilities, sysctls and security options.

What names mean inside (a user, a capability, a container) is looked up later;
here their form is settled, so that nothing below has to guess what was meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from .environment import parse_strings
from .quantities import invalid, wrong_type

#: The largest uid and gid: 2**32-1 is "no change" to the kernel.
MAXIMUM_ID: Final = 0xFFFFFFFE

_DIGITS: Final = r"(?a)[0-9]+"
_USER_NAME: Final = r"[^\s:/,+\-\x00-\x1f\x7f][^\s:/,\x00-\x1f\x7f]{0,255}"
_CAPABILITY: Final = r"(?a)[A-Z][A-Z0-9_]{1,40}"
_CONTAINER: Final = r"(?a)container:[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_SYSCTL: Final = r"(?a)[a-zA-Z0-9_-]+(?:[./][a-zA-Z0-9_:@-]+)+"
_CGROUP_PARENT: Final = r"(?a)/?[a-zA-Z0-9_.@:\\-]+(?:/[a-zA-Z0-9_.@:\\-]+)*/?"


def parse_user(value: str | int, *, option: str = "user") -> str:
    """
    A user as ``name``, ``name:group``, or with numbers; empty is the image's.

    Digits are always a number, never a name, and leave in one decimal form:
    ``007`` is 7, ``1:`` is 1, ``:2`` is ``0:2``.  Names are looked up inside.
    """
    if type(value) is int:
        return str(_identity(option, str(value), value))
    if not isinstance(value, str):
        raise wrong_type(option, value, "a name, a number or 'user:group'")
    if not value:
        return ""
    user, colon, group = value.partition(":")
    if value == ":":
        raise invalid(option, value, "a name, a number or 'user:group'")
    parsed = _identity(option, user, value) if user else "0"
    return f"{parsed}:{_identity(option, group, value)}" if colon and group else parsed


def _identity(option: str, text: str, shown: object) -> str:
    if re.fullmatch(_DIGITS, text):
        if len(text.lstrip("0")) > 10 or int(text) > MAXIMUM_ID:
            raise invalid(option, shown, f"numbers from 0 to {MAXIMUM_ID}")
        return str(int(text))
    if not re.fullmatch(_USER_NAME, text):
        raise invalid(option, shown, f"a name, a number from 0 to {MAXIMUM_ID} or 'user:group'")
    return text


def parse_groups(value: Iterable[str | int] | str | int) -> tuple[str, ...]:
    """
    Additional groups, names or numbers.
    """
    if isinstance(value, (str, int)):
        value = (value,)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type("group_add", value, "a list of names and numbers")
    groups = []
    for group in value:
        if isinstance(group, bool) or not isinstance(group, (str, int)):
            raise wrong_type("group_add", group, "names and numbers")
        groups.append(_identity("group_add", str(group), group))
    return tuple(dict.fromkeys(groups))


_MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "ipc": ("private", "shareable", "none", "host", "container:<name>"),
    "pid": ("private", "host", "container:<name>"),
    "uts": ("private", "host"),
    "cgroup": ("private", "host"),
    "userns_mode": ("private", "host"),
    "network": ("none", "host", "bridge", "container:<name>"),
}


def parse_mode(option: str, value: object) -> str:
    """
    The mode of a namespace; *option* is ``ipc``, ``pid``, ``uts``, ``cgroup``,
    ``userns_mode`` or ``network``.  An empty string means the default.
    """
    modes = _MODES[option]
    if not isinstance(value, str):
        raise wrong_type(option, value, f"one of {', '.join(modes)}")
    if not value or (value in modes and value[-1] != ">"):
        return value
    if "container:<name>" in modes and re.fullmatch(_CONTAINER, value):
        return value
    raise invalid(option, value, f"one of {', '.join(modes)}")


def parse_capabilities(option: str, value: Iterable[str]) -> tuple[str, ...]:
    """
    Capabilities in the one form ``CAP_NET_ADMIN``, or ``ALL``; case and prefix
    do not matter.
    """
    if isinstance(value, str):
        raise wrong_type(option, value, "a list of capabilities like ['NET_ADMIN']")
    names = []
    for item in parse_strings(option, value):
        name = item.upper().removeprefix("CAP_")
        if not re.fullmatch(_CAPABILITY, name):
            raise invalid(option, item, "a capability like 'NET_ADMIN', or 'ALL'")
        names.append(name if name == "ALL" else f"CAP_{name}")
    return tuple(dict.fromkeys(names))


#: Sysctls that belong to an IPC namespace, and those of a network namespace.
_IPC_SYSCTLS: Final = frozenset(
    "kernel." + name
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def parse_sysctls(value: Mapping[str, str | int] | Iterable[str]) -> dict[str, str]:
    """
    Kernel settings from a dictionary or a list of ``"key=value"``.

    Only those of the container's own namespaces are taken; the others would
    change the host.
    """
    if isinstance(value, Mapping):
        pairs: list[tuple[object, object]] = list(value.items())
    elif isinstance(value, str):
        raise wrong_type("sysctls", value, "a dictionary or a list of 'key=value'")
    else:
        pairs = []
        for item in parse_strings("sysctls", value):
            before, equals, after = item.partition("=")
            if not equals:
                raise invalid("sysctls", item, "'key=value'")
            pairs.append((before.strip(), after.strip()))
    result = {}
    for key, given in pairs:
        if not isinstance(key, str):
            raise wrong_type("sysctls", key, "names as strings")
        if isinstance(given, bool) or not isinstance(given, (str, int)):
            raise wrong_type("sysctls", given, f"text or an integer as the value of {key}")
        if not re.fullmatch(_SYSCTL, key) or sysctl_namespace(key) is None:
            accepted = "kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and net.*"
            raise invalid("sysctls", key, f"a setting of the container's own namespaces: {accepted}")
        if "\0" in str(given) or "\n" in str(given) or len(str(given)) > 4096:
            raise invalid("sysctls", f"{key}={given}", "a value without line breaks")
        result[key] = str(given)
    return result


def sysctl_path(key: str) -> str:
    """
    The path of a sysctl below /proc/sys.

    As in sysctl(8), the first separator decides: in ``net.ipv4.conf.a/b.x`` a
    slash stands for a dot within a name, in ``net/ipv4/conf/a.b/x`` neither.
    """
    slash, dot = key.find("/"), key.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def sysctl_namespace(key: str) -> str | None:
    """
    The namespace that a sysctl belongs to: ``ipc``, ``network``, or None for
    the host's own.
    """
    parts = sysctl_path(key).split("/")
    if any(part in ("", ".", "..") for part in parts):
        return None
    if parts[0] == "net":
        return "network"
    if (len(parts) > 2 and parts[:2] == ["fs", "mqueue"]) or (
        len(parts) == 2 and ".".join(parts) in _IPC_SYSCTLS
    ):
        return "ipc"
    return None


@attrs.frozen(kw_only=True)
class SecurityOptions:
    """
    What ``security_opt`` asks for.

    *seccomp* is ``builtin``, ``unconfined`` or a profile's JSON text;
    *unmask* leaves /proc and /sys uncovered (``systempaths=unconfined``).
    """

    no_new_privileges: bool = False
    seccomp: str | None = None
    apparmor: str | None = None
    label: tuple[str, ...] = ()
    unmask: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """
        The options as Docker spells them.
        """
        words = ["no-new-privileges"] if self.no_new_privileges else []
        words += [
            f"{key}={text}" for key, text in (("seccomp", self.seccomp), ("apparmor", self.apparmor)) if text
        ]
        words += [f"label={label}" for label in self.label]
        return (*words, "systempaths=unconfined") if self.unmask else tuple(words)


_SECURITY_FORMS: Final = (
    "'no-new-privileges', 'seccomp=unconfined', 'seccomp=/profile.json', 'seccomp=builtin', 'apparmor=…', "
    "'label=…' or 'systempaths=unconfined'"
)


def parse_security_opt(value: Iterable[str]) -> SecurityOptions:
    """
    Docker's security options; a seccomp profile's file is read at once, so that
    a container keeps the profile that it was created with.
    """
    if isinstance(value, str):
        raise wrong_type("security_opt", value, f"a list of {_SECURITY_FORMS}")
    settings: dict[str, Any] = {}
    labels: list[str] = []
    for item in parse_strings("security_opt", _without_line_breaks(value)):
        match = re.match(r"([a-z-]+)(?:[=:](.*))?$", item, re.DOTALL | re.ASCII)
        key, text = (match[1], match[2]) if match else ("", None)
        if key == "no-new-privileges" and text in (None, "true", "false"):
            settings["no_new_privileges"] = text != "false"
        elif key == "seccomp" and text:
            settings["seccomp"] = _seccomp(text)
        elif key == "apparmor" and text:
            settings["apparmor"] = text
        elif key == "label" and text:
            labels.append(text)
        elif key == "systempaths" and text == "unconfined":
            settings["unmask"] = True
        else:
            raise invalid("security_opt", item, _SECURITY_FORMS)
    return SecurityOptions(label=tuple(labels), **settings)


def _without_line_breaks(value: object) -> object:
    """
    JSON text may have line breaks, which mean nothing there.
    """
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [item.replace("\n", " ") if isinstance(item, str) else item for item in value]
    return value


def _seccomp(text: str) -> str:
    if text in ("builtin", "unconfined"):
        return text
    if not text.lstrip().startswith("{"):
        path = os.path.expanduser(text)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise invalid(
                "security_opt",
                f"seccomp={path}",
                f"a profile that can be read ({error.strerror}), unconfined or builtin",
            ) from None
        except ValueError:
            raise invalid("security_opt", f"seccomp={path}", "a profile in UTF-8") from None
    import json  # only needed for a profile of the caller's own

    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("security_opt", f"seccomp={text}", f"a profile in JSON ({error})") from None
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise invalid("security_opt", f"seccomp={text}", "a seccomp profile with a defaultAction")
    return text


def parse_cgroup_parent(value: object) -> str:
    """
    A cgroup to put the container's below: a path, or a systemd slice.
    """
    if not isinstance(value, str):
        raise wrong_type("cgroup_parent", value, "a path like '/jobs' or a slice like 'jobs.slice'")
    if not re.fullmatch(_CGROUP_PARENT, value) or any(part in (".", "..") for part in value.split("/")):
        raise invalid(
            "cgroup_parent", value, "a path like '/jobs' without '..', or a slice like 'jobs.slice'"
        )
    return value
