# SPDX-License-Identifier: Apache-2.0
"""
What the host gives a container: asked for when it is made, to refuse early,
and again when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.images import host_layout
from containerlib.runtime import cgroups

if TYPE_CHECKING:
    from containerlib.engine import Engine
    from containerlib.images import HostLayout
    from containerlib.types import ContainerConfig


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
        rootless=engine.rootless,
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
    return host_layout(rootless=engine.rootless, hide=hide, engine_paths=(engine.root, engine.run_root))
