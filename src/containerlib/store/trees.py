# SPDX-License-Identifier: Apache-2.0
"""
Removing directory trees: never through a symbolic link, never across a mount.

Small trees of the caller's own files are deleted here, since starting a
process would cost more than the work.  Whatever is bigger, deeper, or owned
by ids of a user namespace is left to the helper.
"""

from __future__ import annotations

import errno
import os

from containerlib import shim
from containerlib.errors import KernelError
from containerlib.shim import forks

RESOLVE_NO_XDEV = 0x01  # linux/openat2.h
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH

DEPTH_HERE = 6
ENTRIES_HERE = 500


def remove_tree(name: str, *, dir_fd: int, userns_fd: int | None = None) -> None:
    """
    Delete *name* below *dir_fd* with all that is in it; it may be missing.

    With *userns_fd*, what the caller may not delete itself is deleted as
    root of that user namespace.

    Raises:
        KernelError: Something cannot be deleted, such as a mount point.
    """
    try:
        done = _remove_here(name, dir_fd, 0, [ENTRIES_HERE])
    except OSError:
        done = False  # the helper may be permitted more, and words the error
    if not done:
        _remove_in_helper(name, dir_fd, userns_fd)


def _remove_here(name: str, dir_fd: int, depth: int, budget: list[int]) -> bool:
    """
    Delete a tree as long as it is shallow and small; say whether it is gone.
    """
    try:
        os.rmdir(name, dir_fd=dir_fd)
        return True
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or depth >= DEPTH_HERE:
            return False
    fd = shim.openat2(dir_fd, name, _OPEN, resolve=_RESOLVE)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        budget[0] -= len(found)
        if budget[0] < 0:
            return False
        for entry, is_directory in found:
            if not is_directory:
                os.unlink(entry, dir_fd=fd)
            elif not _remove_here(entry, fd, depth + 1, budget):
                return False
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)
    return True


def _remove_in_helper(name: str, dir_fd: int, userns_fd: int | None) -> None:
    argv = ["containerlib-init", "remove", name]
    fds = [-1, -1, -1, -1, dir_fd]
    if userns_fd is not None:
        argv.insert(2, "--userns")
    reader, writer = forks.pipe()
    try:
        try:
            child = shim.spawn(argv, fds=[*fds, writer, -1 if userns_fd is None else userns_fd])
        finally:
            forks.close(writer)
        record = _read_all(reader)
        status = child.wait()
    finally:
        forks.close(reader)
    if status == shim.UNKNOWN and not record and not _exists(name, dir_fd):
        return
    if status != 0:
        raise helper_error("remove", record, status, path=name)


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def helper_error(mode: str, record: bytes, status: int, *, path: str) -> KernelError:
    """
    Make the error of a helper that ended with *status* after *record*.
    """
    if record:
        found = shim.decode_error(record)
        return KernelError(found.message, errno=found.code, stage=mode, path=path)
    return KernelError(
        f"{mode} of {path!r}: the helper ended with status {status}",
        errno=errno.ECANCELED,
        stage=mode,
        path=path,
    )
