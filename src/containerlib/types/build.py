# SPDX-License-Identifier: Apache-2.0
"""
Options and an image's configuration, merged into a ContainerConfig.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from containerlib.errors import InvalidOption, NotSupported

from .config import ContainerConfig
from .environment import (
    parse_dns,
    parse_dns_opt,
    parse_dns_search,
    parse_env_file,
    parse_environment,
    parse_extra_hosts,
    parse_hostname,
    parse_labels,
    parse_strings,
)
from .limits import (
    parse_devices,
    parse_healthcheck,
    parse_logging,
    parse_resources,
    parse_restart,
    parse_ulimits,
)
from .mounts import check_target, parse_tmpfs, parse_volumes
from .names import random_name
from .options import UPDATE_NAMES, ContainerOptions, UpdateOptions, check_names
from .parsing import (
    Command,
    parse_command,
    parse_name,
    parse_platform,
    parse_pull_policy,
    parse_working_dir,
)
from .quantities import (
    clean_path,
    invalid,
    parse_bytes,
    parse_duration,
    parse_integer,
    parse_signal,
    wrong_type,
)
from .security import (
    parse_capabilities,
    parse_cgroup_parent,
    parse_groups,
    parse_mode,
    parse_security_opt,
    parse_sysctls,
    parse_user,
    sysctl_namespace,
)
from .values import Mount

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_SIZE: Final = 64 << 20
DEFAULT_GRACE_PERIOD: Final = 10.0


def build_config(
    *,
    id: str,
    image_reference: str,
    image_id: str,
    image_config: Mapping[str, Any],
    command: Command | None,
    options: ContainerOptions,
    name: str | None = None,
    created_ns: int | None = None,
) -> ContainerConfig:
    """
    Merge *options* with the image's configuration by Docker's rules.

    *image_config* has the keys of an OCI image's ``config`` (the whole document
    is taken too).  *name* goes before the option of that name; without either
    the name is a random one.

    Raises:
        TypeError: an unknown option, or a value of a wrong type.
        InvalidOption: a value that cannot be used, or two that contradict.
        NotSupported: an option that needs networks.
    """
    check_names(options)
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if given.keys() & _NEED_NETWORKS:
        _refuse_networks(given)
    image = _image_section(image_config, image_reference)

    fields: dict[str, Any] = {}
    for option, value in given.items():
        parse = _PARSERS.get(option)
        if parse is not None:
            fields[option] = parse(value)
    if "pull_policy" in given:
        parse_pull_policy(given["pull_policy"])
    if given.keys() & _RESOURCE_NAMES:
        fields["resources"] = parse_resources(given)
    if "security_opt" in given:
        fields["security"] = parse_security_opt(given["security_opt"])
    for option in ("ipc", "pid", "uts", "cgroup", "userns_mode"):
        if option in given:
            fields[option] = parse_mode(option, given[option]) or "private"
    network = fields["network"] = parse_mode("network", given.get("network", "")) or "none"
    if network == "bridge":
        raise NotSupported(
            "network='bridge' needs networks, which this version does not have: "
            "use 'none', 'host' or 'container:<name>'",
            subject="network",
        )

    _merge_command(fields, given, image, command, image_reference)
    fields["hostname"] = _hostname(id, fields)
    fields["environment"] = _merge_environment(given, image, fields, image_reference)
    if image:
        _merge_image(fields, image, given, image_reference)
    elif "healthcheck" in given:
        fields["healthcheck"] = parse_healthcheck(given["healthcheck"])
    fields["mounts"] = _merge_mounts(given, fields)
    _check_conflicts(fields, given)

    own_name = fields.pop("name", None)
    return ContainerConfig(
        id=id,
        name=(own_name or random_name()) if name is None else parse_name(name),
        image=image_reference,
        image_id=image_id,
        created_ns=time.time_ns() if created_ns is None else created_ns,
        **fields,
    )


def update_config(config: ContainerConfig, options: UpdateOptions) -> ContainerConfig:
    """
    *config* with new limits or another restart policy.
    """
    check_names(options, UPDATE_NAMES)
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    changed = attrs.evolve(
        config,
        resources=parse_resources(given, config.resources),
        restart=parse_restart(given["restart"]) if "restart" in given else config.restart,
    )
    if changed.auto_remove and changed.restart.name != "no":
        raise invalid("restart", str(changed.restart), "'no', as the container removes itself at its end")
    return changed


def _boolean(option: str) -> Any:
    def parse(value: object) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(option, value, "True or False")
        return value

    return parse


def _shm_size(value: Any) -> int:
    size = parse_bytes(value, option="shm_size")
    if size == 0:
        raise invalid("shm_size", value, "more than 0 bytes")
    return size


def _volumes_from(value: Any) -> tuple[str, ...]:
    names = parse_strings("volumes_from", value)
    for item in names:
        container, _, mode = item.partition(":")
        parse_name(container, option="volumes_from")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise invalid("volumes_from", item, "'container', 'container:ro' or 'container:rw'")
    return names


_PARSERS: Final[dict[str, Any]] = {
    **{
        option: _boolean(option)
        for option in ("tty", "stdin_open", "init", "read_only", "privileged", "detach", "auto_remove")
    },
    "name": parse_name,
    "working_dir": parse_working_dir,
    "user": parse_user,
    "group_add": parse_groups,
    "hostname": parse_hostname,
    "domainname": lambda value: parse_hostname(value, option="domainname"),
    "stop_signal": lambda value: parse_signal(value, option="stop_signal"),
    "stop_grace_period": lambda value: parse_duration(value, option="stop_grace_period"),
    "labels": parse_labels,
    "platform": parse_platform,
    "logging": parse_logging,
    "volumes_from": _volumes_from,
    "shm_size": _shm_size,
    "devices": parse_devices,
    "dns": parse_dns,
    "dns_search": parse_dns_search,
    "dns_opt": parse_dns_opt,
    "extra_hosts": parse_extra_hosts,
    "ulimits": parse_ulimits,
    "oom_score_adj": lambda value: parse_integer("oom_score_adj", value, minimum=-1000, maximum=1000),
    "cap_add": lambda value: parse_capabilities("cap_add", value),
    "cap_drop": lambda value: parse_capabilities("cap_drop", value),
    "sysctls": parse_sysctls,
    "cgroup_parent": parse_cgroup_parent,
    "restart": parse_restart,
}

_RESOURCE_NAMES: Final = UPDATE_NAMES - {"restart"}

_NEED_NETWORKS: Final = {
    "ports": "published ports need",
    "publish_all_ports": "published ports need",
    "networks": "joining networks by name needs",
    "network_aliases": "names on a network need",
    "mac_address": "an address of its own needs",
    "ip": "an address of its own needs",
}


def _refuse_networks(given: Mapping[str, Any]) -> None:
    for option, need in _NEED_NETWORKS.items():
        if given.get(option):
            raise NotSupported(
                f"{option}={given[option]!r:.200}: {need} bridge networks, which this version does not have: "
                "share the host's with network='host'",
                subject=option,
            )


def _image_section(image_config: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """
    The part of an image's document that says how to run it.
    """
    section: object = image_config
    if "config" in image_config or "rootfs" in image_config:
        section = image_config.get("config") or {}
    if not isinstance(section, Mapping):
        raise _bad_image(reference, "config", section, "an object")
    return section


def _bad_image(reference: str, key: str, value: object, accepted: str) -> InvalidOption:
    return invalid(f"image {reference!r}: {key}", value, accepted)


def _image_strings(image: Mapping[str, Any], key: str, reference: str) -> tuple[str, ...]:
    """
    A list of an image's strings; old images have a lone string, or null.
    """
    value = image.get(key)
    if not value:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(
        isinstance(item, str) and "\0" not in item for item in items
    ):
        raise _bad_image(reference, key, value, "a list of strings")
    return tuple(items)


def _merge_command(
    fields: dict[str, Any],
    given: Mapping[str, Any],
    image: Mapping[str, Any],
    command: Command | None,
    reference: str,
) -> None:
    """
    Docker's rule: an entrypoint of the caller's takes the image's command away;
    an empty one takes both away.
    """
    words = parse_command(command) if command is not None else ()
    if "entrypoint" in given:
        entrypoint = parse_command(given["entrypoint"], option="entrypoint")
        if entrypoint == ("",):
            entrypoint = ()
    else:
        entrypoint = _image_strings(image, "Entrypoint", reference)
        words = words or _image_strings(image, "Cmd", reference)
    arguments = entrypoint + words
    if not arguments:
        has = "is left without" if "entrypoint" in given else "has neither Entrypoint nor"
        raise invalid("command", command, f"something to run, as image {reference!r} {has} Cmd")
    if not arguments[0]:
        raise invalid("command", arguments, "the name of a program as the first word")
    fields["entrypoint"] = entrypoint
    fields["command"] = words
    fields["args"] = arguments


def _hostname(id: str, fields: Mapping[str, Any]) -> str:
    """
    The caller's, the host's where it is shared, or the short id.
    """
    if "hostname" in fields:
        return str(fields["hostname"])
    if fields.get("uts") == "host" or fields["network"] == "host":
        return os.uname().nodename
    return id[:12]


def _merge_environment(
    given: Mapping[str, Any], image: Mapping[str, Any], fields: Mapping[str, Any], reference: str
) -> dict[str, str]:
    """
    Docker's defaults, the image's variables, those of files, the caller's: each
    over the one before.
    """
    environment = {"PATH": DEFAULT_PATH, "HOSTNAME": fields["hostname"]}
    if fields.get("tty"):
        environment["TERM"] = "xterm"
    for variable in _image_strings(image, "Env", reference):
        key, equals, value = variable.partition("=")
        if key and equals:
            environment[key] = value
    for option, parse in (("env_file", parse_env_file), ("environment", parse_environment)):
        if option in given:
            for key, given_value in parse(given[option]).items():
                if given_value is None:
                    environment.pop(key, None)
                else:
                    environment[key] = given_value
    return environment


def _merge_image(
    fields: dict[str, Any], image: Mapping[str, Any], given: Mapping[str, Any], reference: str
) -> None:
    """
    What the image says and the caller left open.
    """
    if not fields.get("working_dir"):
        directory = image.get("WorkingDir") or "/"
        if not isinstance(directory, str):
            raise _bad_image(reference, "WorkingDir", directory, "a path")
        fields["working_dir"] = clean_path(
            f"image {reference!r}: WorkingDir", "/" + directory.removeprefix("/")
        )
    if not fields.get("user") and image.get("User"):
        fields["user"] = parse_user(image["User"], option=f"image {reference!r}: User")
    if "stop_signal" not in fields and image.get("StopSignal"):
        fields["stop_signal"] = parse_signal(image["StopSignal"], option=f"image {reference!r}: StopSignal")
    if labels := image.get("Labels"):
        if not isinstance(labels, Mapping) or not all(isinstance(text, str) for text in labels.values()):
            raise _bad_image(reference, "Labels", labels, "texts by name")
        fields["labels"] = {**labels, **fields.get("labels", {})}
    fields["shell"] = _image_strings(image, "Shell", reference)
    fields["exposed_ports"] = tuple(_image_keys(image, "ExposedPorts", reference))
    fields["image_volumes"] = tuple(
        dict.fromkeys(_image_volume(path, reference) for path in _image_keys(image, "Volumes", reference))
    )
    check = image.get("Healthcheck")
    if check is not None and not isinstance(check, Mapping):
        raise _bad_image(reference, "Healthcheck", check, "an object")
    fields["healthcheck"] = parse_healthcheck(given.get("healthcheck"), check, shell=fields["shell"])


def _image_keys(image: Mapping[str, Any], key: str, reference: str) -> list[str]:
    value = image.get(key) or {}
    if not isinstance(value, (Mapping, list, tuple)) or not all(isinstance(name, str) for name in value):
        raise _bad_image(reference, key, value, "an object whose names matter")
    return sorted(value)


def _image_volume(path: str, reference: str) -> str:
    """
    An image must not be able to cover what the runtime relies on.
    """
    option = f"image {reference!r}: Volumes"
    target = clean_path(option, path)
    check_target(target, option, path)
    if target == "/sys" or target.startswith(("/sys/", "/proc/")):
        raise invalid(option, path, "volumes outside /proc and /sys")
    return target


def _merge_mounts(given: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[Mount, ...]:
    """
    The caller's mounts and the image's volumes that they leave open, outer
    ones first.
    """
    mounts: list[Mount] = []
    if "volumes" in given:
        mounts += parse_volumes(given["volumes"])
    if "tmpfs" in given:
        mounts += parse_tmpfs(given["tmpfs"])
    volumes = fields.get("image_volumes", ())
    if not mounts and not volumes:
        return ()
    targets: set[str] = set()
    for mount in mounts:
        if mount.target in targets:
            raise invalid("volumes", mount.target, "one mount for each target")
        check_target(mount.target, "volumes", mount.target)
        targets.add(mount.target)
    mounts += [Mount(type="volume", target=path) for path in volumes if path not in targets]
    return tuple(sorted(mounts, key=lambda mount: mount.target.count("/")))


def _check_conflicts(fields: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """
    Refuse options of which one would silently lose its meaning.
    """
    restart = fields.get("restart")
    if fields.get("auto_remove") and restart is not None and restart.name != "no":
        raise invalid(
            "restart", str(restart), "'no' beside auto_remove: a container that removes itself cannot return"
        )
    network = fields["network"]
    if network.startswith("container:"):
        for option in ("hostname", "domainname", "dns", "dns_search", "dns_opt", "extra_hosts"):
            if given.get(option):
                raise invalid(
                    option, given[option], f"nothing beside network={network!r}, whose container decides it"
                )
    if fields.get("uts") == "host":
        for option in ("hostname", "domainname"):
            if given.get(option):
                raise invalid(option, given[option], "nothing beside uts='host': it would rename the host")
    ipc = fields.get("ipc", "private")
    if "shm_size" in fields and (ipc in ("host", "none") or ipc.startswith("container:")):
        raise invalid(
            "shm_size", given["shm_size"], f"nothing beside ipc={ipc!r}, which brings its /dev/shm or none"
        )
    if fields.get("privileged") and fields.get("userns_mode") == "private" and given.get("userns_mode"):
        raise invalid(
            "userns_mode", "private", "'host' beside privileged, which is no privilege in a user namespace"
        )
    for key in fields.get("sysctls", ()):
        if sysctl_namespace(key) == "network" and network != "none":
            raise invalid(
                "sysctls",
                key,
                f"no net.* beside network={network!r}: it would change more than the container",
            )
        if sysctl_namespace(key) == "ipc" and (ipc == "host" or ipc.startswith("container:")):
            raise invalid(
                "sysctls", key, f"no IPC setting beside ipc={ipc!r}: it would change more than the container"
            )
