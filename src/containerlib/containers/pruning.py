# SPDX-License-Identifier: Apache-2.0
"""
Removing what nothing uses.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib import images
from containerlib.containers import ending
from containerlib.errors import ContainerlibError
from containerlib.runtime import seccomp
from containerlib.store import disk_usage
from containerlib.types import Pruned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.engine import Engine


def prune(engine: Engine, *, all: bool) -> Pruned:
    """
    Remove the containers that do not run, the images that none uses, and what
    dead processes and older versions left.
    """
    store = engine.store
    with store.blobs.transaction():
        # Directories that are made on first use are not to count against what is won.
        store.layers_fd(), store.tmp_fd()
    before = disk_usage(store).total
    leftovers = ending.sweep(engine)
    containers = ending.prune(engine)
    removed = images.prune(store, all=all, userns_fd=engine.userns_fd())
    leftovers += store.sweep(userns_fd=engine.userns_fd())
    leftovers += seccomp.prune_cache(engine.cache)
    leftovers += _run_directories(engine)
    return Pruned(
        containers=tuple(containers),
        images=tuple(removed),
        leftovers=tuple(leftovers),
        freed=max(0, before - disk_usage(store).total),
    )


def _run_directories(engine: Engine) -> Iterator[str]:
    """
    Run directories whose container is gone, with whatever a monitor that was
    killed has left in them.
    """
    run = engine.store.run_fd()
    for name in os.listdir(run):
        if len(name) != 64 or engine.store.containers.exists(name):
            continue
        with contextlib.suppress(OSError, ContainerlibError):
            for entry in os.listdir(f"/proc/self/fd/{run}/{name}"):
                os.unlink(f"{name}/{entry}", dir_fd=run)
            os.rmdir(name, dir_fd=run)
            yield name
