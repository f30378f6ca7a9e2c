# SPDX-License-Identifier: Apache-2.0
r"""
Linux containers from Python, without a daemon.

    >>> import containerlib as cl
    >>> cl.run("host", ["python3", "-c", "print('hi')"], network="none").stdout
    'hi\n'

Everything is loaded when it is first used: importing this module costs a few
milliseconds and loads no third-party package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerlib.errors import (
    AuthenticationError,
    BuildError,
    CommandFailed,
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    ContainerExited,
    ContainerlibError,
    ContainerNotFound,
    ContainerTimeout,
    CorruptState,
    DeviceError,
    DigestMismatch,
    ExitCodeLost,
    ImageNotFound,
    InvalidArchive,
    InvalidOption,
    InvalidReference,
    KernelError,
    ManifestUnknown,
    MountError,
    NetworkNotFound,
    NotFound,
    NotSupported,
    RateLimited,
    RegistryError,
    RegistryUnavailable,
    RemoteError,
    StartFailed,
    UserNotFound,
    VolumeNotFound,
    WorkingDirectoryError,
)

if TYPE_CHECKING:
    from containerlib.container import Container as Container
    from containerlib.container import run as run
    from containerlib.engine import Engine as Engine
    from containerlib.image import Image as Image
    from containerlib.runtime.attachment import Attachment as Attachment
    from containerlib.runtime.process import Process as Process
    from containerlib.types import BlkioConfig as BlkioConfig
    from containerlib.types import Completed as Completed
    from containerlib.types import ContainerConfig as ContainerConfig
    from containerlib.types import ContainerOptions as ContainerOptions
    from containerlib.types import ContainerState as ContainerState
    from containerlib.types import Device as Device
    from containerlib.types import DiskUsage as DiskUsage
    from containerlib.types import Feature as Feature
    from containerlib.types import Healthcheck as Healthcheck
    from containerlib.types import HostInfo as HostInfo
    from containerlib.types import LogConfig as LogConfig
    from containerlib.types import LogLine as LogLine
    from containerlib.types import Mount as Mount
    from containerlib.types import ProcessInfo as ProcessInfo
    from containerlib.types import Pruned as Pruned
    from containerlib.types import RestartPolicy as RestartPolicy
    from containerlib.types import Stats as Stats
    from containerlib.types import Ulimit as Ulimit
    from containerlib.types import UpdateOptions as UpdateOptions

_LAZY = {
    "containerlib.container": ("Container", "run"),
    "containerlib.engine": ("Engine",),
    "containerlib.image": ("Image",),
    "containerlib.runtime.attachment": ("Attachment",),
    "containerlib.runtime.process": ("Process",),
    "containerlib.types": (
        "BlkioConfig",
        "Completed",
        "ContainerConfig",
        "ContainerOptions",
        "ContainerState",
        "Device",
        "DiskUsage",
        "Feature",
        "Healthcheck",
        "HostInfo",
        "LogConfig",
        "LogLine",
        "Mount",
        "ProcessInfo",
        "Pruned",
        "RestartPolicy",
        "Stats",
        "Ulimit",
        "UpdateOptions",
    ),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [
    "Attachment",
    "AuthenticationError",
    "BlkioConfig",
    "BuildError",
    "CommandFailed",
    "CommandNotExecutable",
    "CommandNotFound",
    "Completed",
    "Conflict",
    "Container",
    "ContainerConfig",
    "ContainerExited",
    "ContainerNotFound",
    "ContainerOptions",
    "ContainerState",
    "ContainerTimeout",
    "ContainerlibError",
    "CorruptState",
    "Device",
    "DeviceError",
    "DigestMismatch",
    "DiskUsage",
    "Engine",
    "ExitCodeLost",
    "Feature",
    "Healthcheck",
    "HostInfo",
    "Image",
    "ImageNotFound",
    "InvalidArchive",
    "InvalidOption",
    "InvalidReference",
    "KernelError",
    "LogConfig",
    "LogLine",
    "ManifestUnknown",
    "Mount",
    "MountError",
    "NetworkNotFound",
    "NotFound",
    "NotSupported",
    "Process",
    "ProcessInfo",
    "Pruned",
    "RateLimited",
    "RegistryError",
    "RegistryUnavailable",
    "RemoteError",
    "RestartPolicy",
    "StartFailed",
    "Stats",
    "Ulimit",
    "UpdateOptions",
    "UserNotFound",
    "VolumeNotFound",
    "WorkingDirectoryError",
    "info",
    "run",
    "version",
]


def version() -> str:
    """
    The version of containerlib.
    """
    from importlib.metadata import version as installed

    return installed("containerlib")


def info() -> HostInfo:
    """
    What this host can enforce, what not, why, and how to get it.
    """
    from containerlib.engine import Engine

    return Engine.current().info()


def __getattr__(name: str) -> Any:
    """
    Load a public name from its module and keep it.
    """
    if name == "__version__":
        return version()
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'containerlib' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    if isinstance(value, type):
        value.__module__ = "containerlib"  # tracebacks, pickles and documentation say the public name
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
