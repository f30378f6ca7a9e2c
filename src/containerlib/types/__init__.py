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
    from .quantities import parse_bytes as parse_bytes
    from .quantities import parse_duration as parse_duration
    from .quantities import parse_integer as parse_integer
    from .quantities import parse_signal as parse_signal
    from .quantities import signal_name as signal_name
    from .results import Completed as Completed
    from .results import Feature as Feature
    from .results import HostInfo as HostInfo
    from .results import LogLine as LogLine
    from .results import ProcessInfo as ProcessInfo
    from .results import Stats as Stats
    from .values import BlkioConfig as BlkioConfig
    from .values import Device as Device
    from .values import Healthcheck as Healthcheck
    from .values import LogConfig as LogConfig
    from .values import Mount as Mount
    from .values import Resources as Resources
    from .values import RestartPolicy as RestartPolicy
    from .values import Ulimit as Ulimit

_MODULES = {
    "quantities": ("parse_bytes", "parse_duration", "parse_integer", "parse_signal", "signal_name"),
    "results": ("Completed", "Feature", "HostInfo", "LogLine", "ProcessInfo", "Stats"),
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

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


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
