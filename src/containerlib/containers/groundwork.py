# SPDX-License-Identifier: Apache-2.0
"""
What the host gives a container: asked for when it is made, to refuse early,
and again when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.images import host_layout
from containerlib.runtime import cgroups, idmap

if TYPE_CHECKING:
    from containerlib.engine import Engine
    from containerlib.images import HostLayout
    from containerlib.types import ContainerConfig

HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def compile_cgroups(engine: Engine, config: ContainerConfig) -> cgroups.CgroupPlan:
    """
    The control groups for a container.
    """
    return cgroups.compile(
        config.resources,
        id=config.id,
        devices=config.devices,
        parent=config.cgroup_parent,
        privileged=config.privileged,
        rootless=engine.rootless or idmap.in_userns(),
    )


def late_groups(config: ContainerConfig, plan: cgroups.CgroupPlan) -> tuple[str, ...]:
    """
    Groups that a later update may make: the monitor removes them at the end.
    """
    hierarchy = cgroups.detect().of("cpuset")
    if hierarchy is None or hierarchy.version != 1:
        return ()
    path = f"{cgroups.parent_of(hierarchy, config.cgroup_parent)}/{cgroups.group_name(config.id)}"
    return () if any(directory.path == path for directory in plan.directories) else (path,)


def layout_of(engine: Engine, hide: tuple[str, ...]) -> HostLayout:
    """
    The host's root file system as this engine shows it.
    """
    return host_layout(
        rootless=engine.rootless or idmap.in_userns(), hide=hide, engine_paths=(engine.root, engine.run_root)
    )


def network_files(config: ContainerConfig) -> dict[str, bytes]:
    """
    What a container finds as /etc/hosts, /etc/hostname and /etc/resolv.conf;
    written anew for each start.
    """
    return {
        "hosts": _hosts(config),
        "hostname": f"{config.hostname}\n".encode(),
        "resolv.conf": _resolv_conf(config),
    }


def _hosts(config: ContainerConfig) -> bytes:
    text = HOSTS
    if config.network == "host":
        try:
            with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(1 << 20)
        except OSError:
            text = HOSTS
    for name, address in config.extra_hosts:
        text += f"{address}\t{name}\n"
    return text.encode("utf-8", "surrogateescape")


def _resolv_conf(config: ContainerConfig) -> bytes:
    given = config.dns or config.dns_search or config.dns_opt
    if not given and config.network != "host":
        return b""
    lines = []
    if config.network == "host":
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                lines = file.read(1 << 16).splitlines()
        except OSError:
            lines = []
    replaced = {"nameserver": config.dns, "search": config.dns_search, "options": config.dns_opt}
    for option, words in replaced.items():
        if words:
            lines = [line for line in lines if not line.startswith(option)]
    lines += [f"nameserver {address}" for address in config.dns]
    if config.dns_search:
        lines.append("search " + " ".join(config.dns_search))
    if config.dns_opt:
        lines.append("options " + " ".join(config.dns_opt))
    return ("\n".join(lines) + "\n").encode()
