# SPDX-License-Identifier: Apache-2.0
"""
The options of ``run`` and ``create``: the one definition that editors complete
and type checkers check, as ``**options: Unpack[ContainerOptions]``.

The names are those of the Compose specification.  An option that is left out,
or None, has Docker's default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal, NoReturn, TypedDict

from .environment import EnvFile, Environment, ExtraHosts, Labels
from .limits import Blkio, Devices, HealthcheckOption, Logging, Restart, Ulimits
from .mounts import Tmpfs, Volumes
from .parsing import Command

PortBinding = int | str | tuple[str, int] | tuple[str] | None
Strings = str | Iterable[str]


class ResourceOptions(TypedDict, total=False):
    """
    The limits, which ``update`` takes too.
    """

    mem_limit: int | str | None
    memswap_limit: int | str | None
    mem_reservation: int | str | None
    cpus: float | str | None
    cpu_shares: int | None
    cpuset: str | int | Iterable[int] | None
    cpuset_mems: str | int | Iterable[int] | None
    pids_limit: int | None
    blkio_config: Blkio | None
    oom_kill_disable: bool | None


class UpdateOptions(ResourceOptions, total=False):
    """
    What a container that exists can be given anew.
    """

    restart: Restart | None


class ContainerOptions(ResourceOptions, total=False):
    """
    Everything that a container can be asked to be.
    """

    # process
    name: str | None
    entrypoint: Command | None
    environment: Environment | None
    env_file: EnvFile | None
    working_dir: str | os.PathLike[str] | None
    user: str | int | None
    group_add: Iterable[str | int] | None
    hostname: str | None
    domainname: str | None
    tty: bool | None
    stdin_open: bool | None
    init: bool | None
    stop_signal: str | int | None
    stop_grace_period: float | str | timedelta | None
    labels: Labels | None
    platform: str | None
    pull_policy: Literal["missing", "always", "never"] | None
    logging: Logging | None

    # files
    volumes: Volumes | None
    tmpfs: Tmpfs | None
    volumes_from: Strings | None
    read_only: bool | None
    shm_size: int | str | None
    devices: Devices | None

    # network
    network: str | None
    networks: Iterable[str] | Mapping[str, Any] | None
    network_aliases: Iterable[str] | None
    ports: Mapping[int | str, PortBinding | list[PortBinding]] | Iterable[int | str] | None
    publish_all_ports: bool | None
    dns: Strings | None
    dns_search: Strings | None
    dns_opt: Strings | None
    extra_hosts: ExtraHosts | None
    mac_address: str | None
    ip: str | None

    # limits beside those of ResourceOptions
    ulimits: Ulimits | None
    oom_score_adj: int | None

    # security
    privileged: bool | None
    cap_add: Iterable[str] | None
    cap_drop: Iterable[str] | None
    security_opt: Iterable[str] | None
    sysctls: Mapping[str, str | int] | Iterable[str] | None
    userns_mode: str | None
    ipc: str | None
    pid: str | None
    uts: str | None
    cgroup: str | None
    cgroup_parent: str | None

    # life
    detach: bool | None
    auto_remove: bool | None
    restart: Restart | None
    healthcheck: HealthcheckOption | None


OPTION_NAMES: Final = frozenset(ContainerOptions.__annotations__)
UPDATE_NAMES: Final = frozenset(UpdateOptions.__annotations__)

#: Other names that people know for an option.
_OTHER_NAMES: Final = {
    "remove": "auto_remove",
    "rm": "auto_remove",
    "env": "environment",
    "envs": "environment",
    "workdir": "working_dir",
    "cwd": "working_dir",
    "memory": "mem_limit",
    "memory_swap": "memswap_limit",
    "mem_swap": "memswap_limit",
    "nano_cpus": "cpus",
    "cpu_quota": "cpus",
    "cpuset_cpus": "cpuset",
    "restart_policy": "restart",
    "ipc_mode": "ipc",
    "pid_mode": "pid",
    "uts_mode": "uts",
    "cgroupns": "cgroup",
    "cgroupns_mode": "cgroup",
    "network_mode": "network",
    "net": "network",
    "mounts": "volumes",
    "publish": "ports",
    "add_host": "extra_hosts",
    "log_config": "logging",
    "interactive": "stdin_open",
    "stop_timeout": "stop_grace_period",
    "blkio_weight": "blkio_config",
    "groups": "group_add",
    "capabilities": "cap_add",
    "pull": "pull_policy",
}


def check_names(names: Iterable[str], known: frozenset[str] = OPTION_NAMES) -> None:
    """
    Raise a TypeError for the first name that is no option, with the nearest one.
    """
    for name in names:
        if name not in known:
            _unknown(name, known)


def _unknown(name: str, known: frozenset[str]) -> NoReturn:
    from difflib import get_close_matches  # only an error needs it

    near = _OTHER_NAMES.get(name)
    if near not in known:
        near = next(iter(get_close_matches(name, sorted(known), 1)), None)
    hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(known))}"
    raise TypeError(f"{name!r} is not an option: {hint}")
