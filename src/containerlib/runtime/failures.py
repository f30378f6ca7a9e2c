# SPDX-License-Identifier: Apache-2.0
"""
What the helper reports, as the errors that people catch.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypedDict

from containerlib.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerlibError,
    DeviceError,
    KernelError,
    MountError,
    NotSupported,
    StartFailed,
    UserNotFound,
    WorkingDirectoryError,
)
from containerlib.shim import Stage

if TYPE_CHECKING:
    from containerlib.shim import CError


class _Details(TypedDict):
    """
    What every StartFailed carries.
    """

    subject: str
    stage: str
    errno: int
    path: str


_REASONS = {
    errno.ENOENT: "no such file or directory",
    errno.EACCES: "it is not executable (a directory, or a file without the x bit)",
    errno.ENOEXEC: "exec format error (another architecture, or a script without its interpreter)",
}


def start_error(error: CError, *, subject: str, image: str, path: str | None = None) -> ContainerlibError:
    """
    The exception for a process that could not be started in *subject*.

    *path* is the container's PATH, for commands that were not found.
    """
    code, stage, text = error.code, error.stage, error.message
    reason = os.strerror(code) if code else "failed"
    where = f"container {subject}"
    details: _Details = {"subject": subject, "stage": stage.name.lower(), "errno": code, "path": text}
    if stage is Stage.EXEC:
        return _exec_error(error, where, image, path, details)
    if stage is Stage.USER:
        return _user_error(error, where, image, details)
    if stage is Stage.WORKDIR:
        message = f"{where}: {text}: {reason}; give a directory of image {image!r} as working_dir"
        return WorkingDirectoryError(message, **details)
    if stage is Stage.MOUNT:
        return MountError(f"{where}: {text}: {_mount_reason(code, text)}", **details)
    if stage is Stage.DEVICE:
        return DeviceError(f"{where}: {text}: {reason}", **details)
    if stage is Stage.RLIMIT and code in (errno.EPERM, errno.EACCES):
        message = (
            f"{where}: {text} is above what this process may set; raising a limit or lowering "
            "oom_score_adj needs CAP_SYS_RESOURCE on the host"
        )
        return NotSupported(message, subject=subject)
    if stage is Stage.NAMESPACE and code in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
        message = f"{where}: {text}: {reason}; this host refuses a namespace, see containerlib.info()"
        return NotSupported(message, subject=subject)
    if text.startswith("make a user namespace") and code in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
        message = (
            f"{where}: {text}: {reason}; inside a container, start that one privileged; else see "
            "/proc/sys/user/max_user_namespaces and /proc/sys/kernel/unprivileged_userns_clone"
        )
        return NotSupported(message, subject=subject)
    if stage is Stage.SYSCTL:
        return StartFailed(f"{where}: {text}: {reason}; the kernel refuses this sysctl here", **details)
    return KernelError(
        f"{where}: {stage.name.lower()}: {text}", errno=code or errno.EIO, stage=stage.name.lower(), path=text
    )


def _exec_error(
    error: CError, where: str, image: str, path: str | None, details: _Details
) -> ContainerlibError:
    command = error.message
    reason = _REASONS.get(error.code, os.strerror(error.code))
    if error.code in (errno.ENOENT, errno.ENOTDIR):
        tail = f" on PATH={path}" if path is not None and "/" not in command else ""
        message = f"{where}: command {command!r} not found in image {image!r}{tail}"
        return CommandNotFound(message, **details)
    message = f"{where}: command {command!r} of image {image!r} cannot be executed: {reason}"
    return CommandNotExecutable(message, **details)


def _user_error(error: CError, where: str, image: str, details: _Details) -> ContainerlibError:
    kind, _, name = error.message.partition(" ")
    if error.code in (errno.ENOENT, errno.ERANGE) and kind in ("user", "group"):
        file = "passwd" if kind == "user" else "group"
        if error.code == errno.ERANGE:
            message = f"{where}: {kind} {name!r} is out of range: ids go from 0 to 4294967294"
        else:
            message = f"{where}: no {kind} {name!r} in /etc/{file} of image {image!r}"
        return UserNotFound(message, **details)
    message = f"{where}: {error.message}: {os.strerror(error.code)}"
    if error.code == errno.EINVAL:
        message += "; the id is not mapped here: see id mapping in containerlib.info()"
    return UserNotFound(message, **details)


def _mount_reason(code: int, text: str) -> str:
    if code == errno.EPERM and text.startswith("mount over /proc"):
        return "nothing may cover /proc"
    if code == errno.ELOOP:
        return "a symbolic link where a real directory must be"
    return os.strerror(code)
