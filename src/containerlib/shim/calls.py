# SPDX-License-Identifier: Apache-2.0
"""
System calls that Python's standard library lacks.

Each takes and returns plain integers and paths, and raises
:class:`~containerlib.errors.KernelError` with the operation, its operand and
the errno.  Meanings are those of the man pages of the same names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from containerlib.errors import KernelError
from containerlib.shim._shim import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable


def _check(function: Callable[..., int], *args: Any) -> int:
    """
    Call *function* with an error record and raise what it reports.
    """
    error = ffi.new("struct cl_error *")
    result: int = function(*args, error)
    if result < 0:
        text = ffi.string(error.msg).decode(errors="replace")
        operation, _, operand = text.partition(" ")
        raise KernelError(text, errno=error.code, stage=operation, path=operand)
    return result


def openat2(directory: int, path: str | bytes, flags: int = 0, *, mode: int = 0, resolve: int = 0) -> int:
    """
    Open *path* below the descriptor *directory*; *resolve* are RESOLVE_* bits.
    """
    return _check(lib.cl_openat2, directory, os.fsencode(path), flags | os.O_CLOEXEC, mode, resolve)


def open_tree(directory: int, path: str | bytes, flags: int) -> int:
    """
    Open, or with OPEN_TREE_CLONE copy, the mount at *path*.
    """
    return _check(lib.cl_open_tree, directory, os.fsencode(path), flags)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """
    Attach a detached mount, or move an attached one.
    """
    _check(lib.cl_move_mount, from_fd, os.fsencode(from_path), to_fd, os.fsencode(to_path), flags)


def fsopen(fs_type: str) -> int:
    """
    Start the configuration of a new file system instance.
    """
    return _check(lib.cl_fsopen, fs_type.encode())


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """
    Set a string parameter of a file system being configured.
    """
    _check(lib.cl_fsconfig_string, fd, key.encode(), os.fsencode(value))


def fsconfig_flag(fd: int, key: str) -> None:
    """
    Set a flag of a file system being configured.
    """
    _check(lib.cl_fsconfig_flag, fd, key.encode())


def fsmount(fd: int, attributes: int = 0) -> int:
    """
    Create the configured file system and return a detached mount of it.
    """
    return _check(lib.cl_fsmount, fd, attributes)


def mount_setattr(
    directory: int,
    path: str,
    flags: int = 0,
    *,
    attr_set: int = 0,
    attr_clear: int = 0,
    propagation: int = 0,
    userns_fd: int = -1,
) -> None:
    """
    Change the attributes of a mount, with AT_RECURSIVE of a whole tree.
    """
    _check(
        lib.cl_mount_setattr,
        directory,
        os.fsencode(path),
        flags,
        attr_set,
        attr_clear,
        propagation,
        userns_fd,
    )


def pivot_root(new_root: str, put_old: str) -> None:
    """
    Make *new_root* the root of this mount namespace.
    """
    _check(lib.cl_pivot_root, os.fsencode(new_root), os.fsencode(put_old))


def umount(path: str, flags: int = 0) -> None:
    """
    Detach the mount at *path*.
    """
    _check(lib.cl_umount, os.fsencode(path), flags)


def setns(fd: int, namespaces: int) -> None:
    """
    Join a namespace by its descriptor, or several by a process's pidfd.
    """
    _check(lib.cl_setns, fd, namespaces)


def unshare(flags: int) -> None:
    """
    Leave the namespaces named by the CLONE_NEW* bits for new ones.
    """
    _check(lib.cl_unshare, flags)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """
    Duplicate a descriptor of another process.
    """
    return _check(lib.cl_pidfd_getfd, pidfd, fd)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """
    Close, or mark close-on-exec, a range of descriptors.
    """
    _check(lib.cl_close_range, first, last, flags)


def check_plan(plan: bytes) -> None:
    """
    Check a plan as the helper will before it acts on it.
    """
    buffer = ffi.new("uint64_t[]", (len(plan) + 7) // 8)
    ffi.memmove(buffer, plan, len(plan))
    _check(lib.cl_plan_check, buffer, len(plan))
