# SPDX-License-Identifier: Apache-2.0
"""
Descriptors that a forked child must not keep.

Close-on-exec does not help against a fork without exec, as multiprocessing
makes: a copy of a pipe's end keeps its reader waiting, a copy of a locked file
keeps the lock, for as long as the child lives.  What is opened here is closed
in a child that another thread forks.

Only for descriptors that nothing but a function's own frame will close: in the
child such frames never go on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_held: set[int] = set()
# Nobody forks between a descriptor's birth and its note, nor between the
# note's end and the descriptor's.
_lock = threading.RLock()


def hold(opening: Callable[[], int]) -> int:
    """
    Open a descriptor that forked children do not keep.
    """
    with _lock:
        fd = opening()
        _held.add(fd)
    return fd


def pipe() -> tuple[int, int]:
    """
    A pipe that forked children do not keep.
    """
    with _lock:
        ends = os.pipe2(os.O_CLOEXEC)
        _held.update(ends)
    return ends


def close(fd: int) -> None:
    """
    Close a descriptor, held or not.
    """
    with _lock:
        _held.discard(fd)
        os.close(fd)


def _in_child() -> None:
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)
