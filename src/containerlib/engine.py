# SPDX-License-Identifier: Apache-2.0
"""
An engine: one state directory, the host's abilities, and the rooms below
wired together.

There is no daemon.  Any number of processes may use one engine at a time, and
nothing runs on its behalf but one small monitor for each running container.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from containerlib.runtime import idmap
from containerlib.store import Store, default_root, default_run_root

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from containerlib.runtime.idmap import IdMapping
    from containerlib.types import DiskUsage, HostInfo, Pruned

_current: ContextVar[tuple[Engine, ...]] = ContextVar("containerlib_engine", default=())


class Engine:
    """
    Containers and images below *root*.

    *root* is by default ``$CONTAINERLIB_ROOT``, else the system's data
    directory as root and the user's as a user; *run_root*, which should be on
    a tmpfs, ``$XDG_RUNTIME_DIR/containerlib`` or ``/run/containerlib``.
    Directories are made when they are first needed.

    ``with Engine(path):`` makes it the current one, which every class uses
    when no *engine* is given, for this context: threads and tasks keep their
    own.
    """

    _default: Engine | None = None

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        run_root: str | os.PathLike[str] | None = None,
        *,
        registries: Iterable[object] | None = None,
    ) -> None:
        self.root = default_root() if root is None else Path(root).absolute()
        if run_root is None:
            run_root = default_run_root() if root is None else self.root / "run"
        self.run_root = Path(run_root).absolute()
        self.registries = tuple(registries or ())
        self.store = Store(self.root, self.run_root)
        self.swept = False

    def __repr__(self) -> str:
        return f"<Engine(root={str(self.root)!r}, run_root={str(self.run_root)!r})>"

    @classmethod
    def default(cls) -> Engine:
        """
        The engine over the default directories, one for this process.
        """
        if Engine._default is None:
            Engine._default = Engine()
        return Engine._default

    @classmethod
    def current(cls) -> Engine:
        """
        The engine of this context: that of the innermost ``with``, else the
        default one.
        """
        entered = _current.get()
        return entered[-1] if entered else cls.default()

    def __enter__(self) -> Self:
        _current.set((*_current.get(), self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.set(_current.get()[:-1])

    @property
    def mapping(self) -> IdMapping:
        """
        How the ids of containers map to the host's.
        """
        return idmap.detect()

    @property
    def rootless(self) -> bool:
        """
        Whether containers need a user namespace here.
        """
        return self.mapping.userns

    def userns_fd(self) -> int | None:
        """
        The user namespace in which files of containers are owned; None when
        the caller's own ids are theirs.
        """
        return idmap.userns_fd()

    @property
    def cache(self) -> Path:
        """
        Where compiled filters are kept.
        """
        return self.root / "cache"

    def info(self) -> HostInfo:
        """
        What this host can enforce, what not, why, and how to get it.
        """
        from containerlib.runtime import abilities

        return abilities.host_info(self.root, self.run_root)

    def disk_usage(self) -> DiskUsage:
        """
        Bytes on disk by kind, as ``du`` counts them.
        """
        from containerlib.store import disk_usage

        return disk_usage(self.store)

    def prune(self, *, all: bool = False) -> Pruned:
        """
        Remove the containers that do not run, then the images that none uses:
        those without a name, with *all* also those with one.

        Left-overs go too: layers that no image needs, what processes that
        died have half made or half removed, caches of other versions.  The
        bytes won are the difference of two :meth:`disk_usage`: what others
        write meanwhile counts against them.
        """
        from containerlib.containers import pruning

        return pruning.prune(self, all=all)
