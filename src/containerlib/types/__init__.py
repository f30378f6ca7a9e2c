# SPDX-License-Identifier: Apache-2.0
"""
Values that every room shares: what a container was asked to be, and what
calls give back.

Names are loaded from their modules when they are first used: each attrs class
costs about half a millisecond to make, and few programs need them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import build_config as build_config
    from .build import update_config as update_config
    from .config import ContainerConfig as ContainerConfig
    from .environment import parse_environment as parse_environment
    from .environment import parse_labels as parse_labels
    from .inspect import ContainerState as ContainerState
    from .inspect import HealthResult as HealthResult
    from .inspect import container_document as container_document
    from .mounts import parse_volumes as parse_volumes
    from .names import random_name as random_name
    from .options import ContainerOptions as ContainerOptions
    from .options import UpdateOptions as UpdateOptions
    from .parsing import parse_command as parse_command
    from .parsing import parse_detach_keys as parse_detach_keys
    from .parsing import parse_name as parse_name
    from .parsing import parse_platform as parse_platform
    from .parsing import parse_pull_policy as parse_pull_policy
    from .parsing import parse_working_dir as parse_working_dir
    from .quantities import parse_bytes as parse_bytes
    from .quantities import parse_duration as parse_duration
    from .quantities import parse_integer as parse_integer
    from .quantities import parse_signal as parse_signal
    from .quantities import signal_name as signal_name
    from .results import Completed as Completed
    from .results import DiskUsage as DiskUsage
    from .results import Feature as Feature
    from .results import HostInfo as HostInfo
    from .results import LogLine as LogLine
    from .results import ProcessInfo as ProcessInfo
    from .results import Pruned as Pruned
    from .results import Stats as Stats
    from .security import SecurityOptions as SecurityOptions
    from .security import parse_user as parse_user
    from .security import sysctl_path as sysctl_path
    from .values import BlkioConfig as BlkioConfig
    from .values import Device as Device
    from .values import Healthcheck as Healthcheck
    from .values import LogConfig as LogConfig
    from .values import Mount as Mount
    from .values import Resources as Resources
    from .values import RestartPolicy as RestartPolicy
    from .values import Ulimit as Ulimit

_MODULES = {
    "build": (
        "build_config",
        "update_config",
    ),
    "config": ("ContainerConfig",),
    "environment": (
        "parse_environment",
        "parse_labels",
    ),
    "inspect": (
        "ContainerState",
        "HealthResult",
        "container_document",
    ),
    "mounts": ("parse_volumes",),
    "names": ("random_name",),
    "options": (
        "ContainerOptions",
        "UpdateOptions",
    ),
    "parsing": (
        "parse_command",
        "parse_detach_keys",
        "parse_name",
        "parse_platform",
        "parse_pull_policy",
        "parse_working_dir",
    ),
    "quantities": (
        "parse_bytes",
        "parse_duration",
        "parse_integer",
        "parse_signal",
        "signal_name",
    ),
    "results": (
        "Completed",
        "DiskUsage",
        "Feature",
        "HostInfo",
        "LogLine",
        "ProcessInfo",
        "Pruned",
        "Stats",
    ),
    "security": (
        "SecurityOptions",
        "parse_user",
        "sysctl_path",
    ),
    "values": (
        "BlkioConfig",
        "Device",
        "Healthcheck",
        "LogConfig",
        "Mount",
        "Resources",
        "RestartPolicy",
        "Ulimit",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)  # the one list is _MODULES


def __getattr__(name: str) -> Any:
    """
    Load *name* from its module and keep it.
    """
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
