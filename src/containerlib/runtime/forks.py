# SPDX-License-Identifier: Apache-2.0
"""
Descriptors that a forked child must not keep.

Close-on-exec does not help against a fork without exec, as multiprocessing
makes: a copy of a pipe's end keeps its reader waiting, a copy of a locked file
keeps the lock, for as long as the child lives.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_held: set[int] = set()


@contextlib.contextmanager
def not_inherited(*fds: int) -> Iterator[None]:
    """
    For the block, a child forked by another thread closes its copies of *fds*.

    Only for descriptors that nothing but the block's own frames will close:
    in the child those frames never go on.
    """
    _held.update(fds)
    try:
        yield
    finally:
        _held.difference_update(fds)


def close(fd: int) -> None:
    """
    Close a descriptor of such a block before the block ends.
    """
    _held.discard(fd)
    os.close(fd)


def _close_copies() -> None:
    for fd in _held:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_copies)
