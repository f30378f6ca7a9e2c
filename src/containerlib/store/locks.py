# SPDX-License-Identifier: Apache-2.0
"""
Locks that die with their holder: ``flock`` on descriptors closed by exec.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def locked(fd: int, *, shared: bool = False) -> Iterator[int]:
    """
    Hold the lock of the open file behind *fd*, waiting for it if need be.
    """
    fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked_directory(path: str, *, dir_fd: int | None = None, shared: bool = False) -> Iterator[int]:
    """
    Open the directory *path* and hold its lock; yields the descriptor.

    A descriptor of its own for each holder: two threads that shared one
    would share the lock, too.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        with locked(fd, shared=shared):
            yield fd
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """
    Take the lock of *fd* if nobody holds it; say whether that worked.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
