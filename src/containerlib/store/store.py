# SPDX-License-Identifier: Apache-2.0
"""
One state directory: its private root, and the collections below it.

``containers/ volumes/ networks/`` hold objects, ``images/`` the blobs as an
OCI layout, ``layers/sha256/<diff id>/root`` unpacked layers, ``tmp/`` what is
being made.  The run root, on a tmpfs, holds what ends with the boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

import attrs

from containerlib.errors import ContainerNotFound, NetworkNotFound, NotFound, NotSupported, VolumeNotFound
from containerlib.store import makers
from containerlib.store.blobs import Blobs
from containerlib.store.names import list_directory
from containerlib.store.objects import Objects
from containerlib.store.paths import DIRECTORY, FORMAT_FILE, close_all, open_private, open_subdirectory
from containerlib.store.trees import remove_tree
from containerlib.types import DiskUsage

FORMAT = b"1\n"


class Store:
    """
    The state below *root*, and below *run_root* what ends with the boot.

    Both are made with mode 0700 when first used; a directory that belongs to
    somebody else, or that others could enter, is refused.  Any number of
    processes may use one root at a time.
    """

    def __init__(self, root: Path, run_root: Path) -> None:
        self.root = Path(root).absolute()
        self.run_root = Path(run_root).absolute()
        self._fds: dict[str, int] = {}
        self.containers = self._objects("containers", "container", ContainerNotFound)
        self.volumes = self._objects("volumes", "volume", VolumeNotFound)
        self.networks = self._objects("networks", "network", NetworkNotFound)
        self.blobs = Blobs(self.root / "images", parent=self.root_fd)
        weakref.finalize(self, close_all, self._fds)

    def _objects(self, name: str, kind: str, not_found: type[NotFound]) -> Objects:
        return Objects(self.root / name, parent=self.root_fd, kind=kind, not_found=not_found)

    def _collections(self) -> tuple[Objects, ...]:
        return self.containers, self.volumes, self.networks

    def __repr__(self) -> str:
        return f"<Store(root={str(self.root)!r}, run_root={str(self.run_root)!r})>"

    def root_fd(self) -> int:
        """
        Return a descriptor of the root, which this makes if needed.
        """
        if "root" not in self._fds:
            fd = open_private(self.root, option="root")
            try:
                self._check_format(fd)
            except BaseException:
                os.close(fd)
                raise
            self._keep("root", fd)
        return self._fds["root"]

    def run_fd(self) -> int:
        """
        Return a descriptor of the run root, which this makes if needed.
        """
        if "run" not in self._fds:
            if self.run_root.is_relative_to(self.root):
                self.root_fd()  # made private before anything stands in it
            self._keep("run", open_private(self.run_root, option="run_root"))
        return self._fds["run"]

    def layers_fd(self) -> int:
        """
        Return a descriptor of the directory of unpacked layers.
        """
        if "layers" not in self._fds:
            above = open_subdirectory("layers", dir_fd=self.root_fd())
            try:
                self._keep("layers", open_subdirectory("sha256", dir_fd=above))
            finally:
                os.close(above)
        return self._fds["layers"]

    def tmp_fd(self) -> int:
        """
        Return a descriptor of the directory for what is being made.
        """
        if "tmp" not in self._fds:
            self._keep("tmp", open_subdirectory("tmp", dir_fd=self.root_fd()))
        return self._fds["tmp"]

    def _keep(self, key: str, fd: int) -> None:
        if self._fds.setdefault(key, fd) != fd:
            os.close(fd)  # another thread was faster

    def _check_format(self, fd: int) -> None:
        try:
            with open(
                os.open(FORMAT_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd), "rb"
            ) as file:
                found = file.read(16)
        except FileNotFoundError:
            temporary = makers.scratch(FORMAT_FILE)
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd), "wb"
            ) as file:
                file.write(FORMAT)
            os.rename(temporary, FORMAT_FILE, src_dir_fd=fd, dst_dir_fd=fd)
            return
        # Empty: made just before a power cut; no state of any format can be older than it.
        if found not in (FORMAT, b""):
            raise NotSupported(
                f"{self.root} has format {found.decode(errors='replace').strip()!r}, this containerlib reads "
                f"format {FORMAT.decode().strip()!r}; use the version that wrote it",
                subject=str(self.root),
            )

    @contextlib.contextmanager
    def workspace(self, purpose: str, *, userns_fd: int | None = None) -> Iterator[int]:
        """
        Yield a descriptor of a private directory on the store's file system,
        deleted at the end, or by the next sweep if this process dies.
        """
        tmp = self.tmp_fd()
        name = makers.scratch(purpose)
        os.mkdir(name, 0o700, dir_fd=tmp)
        try:
            fd = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=tmp)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield fd
            finally:
                os.close(fd)
        finally:
            remove_tree(name, dir_fd=tmp, userns_fd=userns_fd)

    def sweep(self, *, userns_fd: int | None = None) -> list[str]:
        """
        Delete everything that dead makers left half-made or half-removed.
        """
        swept = [entry for objects in self._collections() for entry in objects.sweep(userns_fd=userns_fd)]
        swept += self.blobs.sweep()
        for fd in (self.tmp_fd(), self.layers_fd()):
            for name in list_directory(fd):
                if makers.split(name) and makers.is_abandoned(name, dir_fd=fd):
                    remove_tree(name, dir_fd=fd, userns_fd=userns_fd)
                    swept.append(name)
        return swept

    def close(self) -> None:
        """
        Close the descriptors that are kept open for speed.

        The store can still be used: it opens them again.
        """
        for objects in self._collections():
            objects.close()
        self.blobs.close()
        close_all(self._fds)


def disk_usage(store: Store) -> DiskUsage:
    """
    Return the bytes on disk by kind, as ``du`` counts them.
    """
    kinds = {field.name: 0 for field in attrs.fields(DiskUsage) if field.name != "unreadable"}
    seen: set[tuple[int, int]] = set()
    unreadable: list[str] = []
    root = str(store.root)
    try:
        kinds["other"] = os.lstat(root).st_blocks * 512
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries)
    except FileNotFoundError:
        names = []
    for name in names:
        kinds[name if name in kinds else "other"] += _blocks(os.path.join(root, name), seen, unreadable)
    return DiskUsage(**kinds, unreadable=tuple(unreadable))


def _blocks(path: str, seen: set[tuple[int, int]], unreadable: list[str]) -> int:
    """
    Return what *path* and all below it takes, without what *seen* has.
    """
    total = 0
    pending = [path]
    while pending:
        path = pending.pop()
        mode = 0
        try:
            found = os.lstat(path)
            mode = found.st_mode
            if found.st_nlink > 1 and not stat.S_ISDIR(mode):
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
            if stat.S_ISDIR(mode):
                with os.scandir(path) as entries:
                    pending += [entry.path for entry in entries]
        except PermissionError:
            # overlayfs makes its own directory with mode 0, and leaves nothing in it.
            if os.path.basename(path) != "work" or mode != stat.S_IFDIR:
                unreadable.append(path)
        except OSError:
            continue  # gone while this looked
    return total
