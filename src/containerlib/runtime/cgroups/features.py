# SPDX-License-Identifier: Apache-2.0
"""
Which limits this host enforces, as data.
"""

from __future__ import annotations

import os

from containerlib.errors import ContainerlibError, NotSupported
from containerlib.runtime.cgroups.layout import CgroupLayout, detect
from containerlib.runtime.cgroups.limits import limits, require
from containerlib.types import BlkioConfig, Feature, Resources

_TRIALS = (
    ("mem_limit", Resources(mem_limit=64 << 20)),
    ("memswap_limit", Resources(mem_limit=64 << 20, memswap_limit=64 << 20)),
    ("cpus", Resources(cpus=1.0)),
    ("cpu_shares", Resources(cpu_shares=512)),
    ("pids_limit", Resources(pids_limit=100)),
    ("blkio_config.weight", Resources(blkio=BlkioConfig(weight=100))),
)


def features(layout: CgroupLayout | None = None) -> list[Feature]:
    """
    Each limit, and pausing, with what stands in its way here.

    Nothing is made: the same checks run as before a start.
    """
    layout = detect() if layout is None else layout
    found = []
    for name, resources in _TRIALS:
        try:
            limits(resources, layout)
        except ContainerlibError as error:
            found.append(_missing(name, error))
        else:
            found.append(Feature(name=name, available=True))
    for name, controller in (("cpuset", "cpuset"), ("pause", "freezer"), ("device_cgroup_rules", "devices")):
        try:
            require(layout, controller, name)
            if controller == "devices" and os.geteuid() != 0:
                raise NotSupported(f"{name}: only root can filter devices: run as root")
        except ContainerlibError as error:
            found.append(_missing(name, error))
        else:
            found.append(Feature(name=name, available=True))
    return found


def _missing(name: str, error: ContainerlibError) -> Feature:
    """
    The error's text, which ends in the remedy.
    """
    text = str(error)
    reason, separator, remedy = text.rpartition(": ")
    return Feature(
        name=name, available=False, reason=reason if separator else text, remedy=remedy if separator else ""
    )
