# SPDX-License-Identifier: Apache-2.0
"""
Collections of objects: one directory each, committed by ``rename``.

The story of one object: its directory is filled under a temporary name that
says who makes it; its name is claimed; one rename makes it visible.  It is
removed the other way round: one rename takes it out of sight, its name is
released, its files are deleted.  A kill at any instant leaves either the
object, or something temporary that the next sweep deletes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from containerlib.errors import Conflict, ContainerlibError, CorruptState, KernelError, NotFound
from containerlib.store import makers
from containerlib.store.locks import locked
from containerlib.store.names import OWN_NAME, Names, check_name, list_directory
from containerlib.store.paths import DIRECTORY, close_all, open_subdirectory
from containerlib.store.trees import remove_tree

BY_NAME = "by-name"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Objects:
    """
    The objects of one kind, as directories below *path*.

    *parent* gives a descriptor of the directory above, opened on first use.
    """

    def __init__(
        self, path: Path, *, parent: Callable[[], int], kind: str, not_found: type[NotFound]
    ) -> None:
        self._path = path
        self._parent = parent
        self._kind = kind
        self._not_found = not_found
        self._fds: dict[str, int] = {}
        weakref.finalize(self, close_all, self._fds)
        self.names = Names(top=self._top, links=self._links, kind=kind)

    def __repr__(self) -> str:
        return f"<Objects(kind={self._kind!r}, path={str(self._path)!r})>"

    def _top(self) -> int:
        try:
            return self._fds["top"]
        except KeyError:
            return self._keep("top", open_subdirectory(self._path.name, dir_fd=self._parent()))

    def _links(self) -> int:
        try:
            return self._fds["links"]
        except KeyError:
            return self._keep("links", open_subdirectory(BY_NAME, dir_fd=self._top()))

    def _keep(self, key: str, fd: int) -> int:
        # Two threads may come here at once; setdefault lets one of them win.
        kept = self._fds.setdefault(key, fd)
        if kept != fd:
            os.close(fd)
        return kept

    def close(self) -> None:
        """
        Close the descriptors that are kept open for speed.
        """
        close_all(self._fds)

    # ---- making -----------------------------------------------------------

    def create(
        self,
        id: str,
        *,
        name: str | None = None,
        files: Mapping[str, bytes],
        directories: Sequence[str | tuple[str, int]] = (),
        durable: bool = False,
    ) -> Path:
        """
        Make the object *id* with *files* and *directories* in one step.

        Directories are made in the order given with mode 0755 or the mode
        that stands beside them, files with 0644: they may be shown in a
        container, and the object's own directory, 0700, keeps others out.
        With *durable*, what was written has reached the disk before the
        object becomes visible.

        Raises:
            Conflict: The name, or the id, is taken.
        """
        if name is not None:
            check_name(name, kind=self._kind)
        top = self._top()
        temporary = makers.making(id)
        claimed = foreign = False
        try:
            try:
                os.mkdir(temporary, 0o700, dir_fd=top)
            except FileExistsError:
                foreign = True
                raise Conflict(f"another thread is making the {self._kind} {id}", subject=id) from None
            fd = os.open(temporary, DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for entry in directories:
                    path, mode = (entry, 0o755) if isinstance(entry, str) else entry
                    os.mkdir(path, mode, dir_fd=fd)
                    os.chmod(path, mode, dir_fd=fd)  # whatever the umask
                for path, data in files.items():
                    _write(path, data, dir_fd=fd, durable=durable)
                if name is not None:
                    os.symlink(name, OWN_NAME, dir_fd=fd)
                    claimed = True  # before it is: an interrupt may follow at once
                    self.names.claim(name, id)
                if durable:
                    os.fsync(fd)
                self._commit(temporary, id, top)
                if durable:
                    os.fsync(top)
            finally:
                os.close(fd)
        except BaseException as error:
            if claimed and name is not None:
                self.names.release(name, id)
            if not foreign:
                with contextlib.suppress(OSError):
                    remove_tree(temporary, dir_fd=top)
            if isinstance(error, OSError) and not isinstance(error, ContainerlibError):
                raise self._failed("make", id, error) from error
            raise
        return self._path / id

    def _failed(self, doing: str, id: str, error: OSError) -> KernelError:
        message = f"{doing} the {self._kind} {id[:12]} in {self._path}"
        return KernelError(message, errno=error.errno or 0, stage="store", path=str(self._path), subject=id)

    def _commit(self, temporary: str, id: str, top: int) -> None:
        try:
            os.rename(temporary, id, src_dir_fd=top, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in (17, 39):  # EEXIST, ENOTEMPTY
                raise
            raise Conflict(f"the {self._kind} id {id} is taken", subject=id) from error

    # ---- finding ----------------------------------------------------------

    def ids(self) -> list[str]:
        """
        Return the ids of all objects, in no order.
        """
        return [entry for entry in list_directory(self._top()) if entry[0] != "." and entry != BY_NAME]

    def exists(self, id: str) -> bool:
        """
        Say whether there is an object with exactly this *id*.
        """
        if not id or "/" in id or "\0" in id or id.startswith(".") or id == BY_NAME:
            return False
        try:
            os.stat(id, dir_fd=self._top(), follow_symlinks=False)
        except OSError:
            return False
        return True

    def resolve(self, key: str) -> str:
        """
        Return the id that *key* means: a full id, a name, or the beginning
        of exactly one id.

        Raises:
            NotFound: The collection's own class of it.
            Conflict: Several ids begin so.
        """
        if self.exists(key):
            return key
        id = self.names.lookup(key) if key and "/" not in key else None
        if id is not None and self.exists(id):
            return id
        if key and not key.startswith("."):
            found = [id for id in self.ids() if id.startswith(key)]
            if len(found) == 1:
                return found[0]
            if found:
                raise Conflict(
                    f"{len(found)} {self._kind}s have an id that begins with {key!r}; give more of it",
                    subject=key,
                )
        raise self._missing(key)

    def _missing(self, key: str) -> NotFound:
        return self._not_found(f"there is no {self._kind} {key!r} in {self._path}", subject=key)

    def path(self, id: str) -> Path:
        """
        Return where the object *id* is, or would be.
        """
        return self._path / id

    def open(self, id: str) -> int:
        """
        Open the object's directory; the caller closes the descriptor.
        """
        try:
            return os.open(id, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._top())
        except FileNotFoundError:
            raise self._missing(id) from None

    def name(self, id: str) -> str | None:
        """
        Return the object's name, None if it has none.
        """
        return self.names.own(id)

    def read(self, id: str, file: str) -> bytes:
        """
        Return the content of one *file* of the object.

        Raises:
            NotFound: There is no such object.
            CorruptState: There is, but without that file.
        """
        try:
            fd = os.open(f"{id}/{file}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._top())
        except FileNotFoundError:
            if not self.exists(id):
                raise self._missing(id) from None
            raise CorruptState(
                f"{self._path / id} has no file {file!r}; remove the {self._kind} with force", subject=id
            ) from None
        with open(fd, "rb") as stream:
            return stream.read()

    # ---- changing ---------------------------------------------------------

    def replace(self, id: str, file: str, data: bytes, *, durable: bool = False) -> None:
        """
        Write *file* anew; a reader sees the old content or the new one.
        """
        fd = self.open(id)
        try:
            temporary = makers.scratch(file)
            try:
                _write(temporary, data, dir_fd=fd, durable=durable)
                os.rename(temporary, file, src_dir_fd=fd, dst_dir_fd=fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=fd)
                raise
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, id: str, new_name: str) -> None:
        """
        Give the object another name.

        Raises:
            Conflict: The name is taken.
        """
        check_name(new_name, kind=self._kind)
        if not self.exists(id):
            raise self._missing(id)
        self.names.rename(id, new_name)

    @contextlib.contextmanager
    def lock(self, id: str, *, shared: bool = False) -> Iterator[int]:
        """
        Hold the object's lock; yields a descriptor of its directory.

        The lock is gone with its holder.  An object that was removed while
        this waited raises NotFound.
        """
        fd = self.open(id)
        try:
            with locked(fd, shared=shared):
                mine = os.fstat(fd)
                try:
                    now = os.stat(id, dir_fd=self._top(), follow_symlinks=False)
                except FileNotFoundError:
                    raise self._missing(id) from None
                if (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino):
                    raise self._missing(id)
                yield fd
        finally:
            os.close(fd)

    def remove(self, id: str, *, userns_fd: int | None = None) -> None:
        """
        Remove the object, whatever state it is in.

        *userns_fd* is the user namespace whose ids own the files, if the
        caller's own do not.  Of two that remove one object, one succeeds and
        the other gets NotFound.
        """
        if not id or "/" in id or id[0] == "." or id == BY_NAME:
            raise self._missing(id)
        top = self._top()
        doomed = makers.removing(id)
        try:
            os.rename(id, doomed, src_dir_fd=top, dst_dir_fd=top)
        except FileNotFoundError:
            raise self._missing(id) from None
        self._finish_removal(doomed, id, top, userns_fd)

    def _finish_removal(self, doomed: str, id: str, top: int, userns_fd: int | None) -> None:
        # Nobody takes the claim for stale while `doomed` is there and its maker lives.
        if (name := self.names.own(doomed)) is not None:
            self.names.release(name, id)
        remove_tree(doomed, dir_fd=top, userns_fd=userns_fd)

    def sweep(self, *, userns_fd: int | None = None) -> list[str]:
        """
        Delete what dead makers left behind; returns the entries and names.
        """
        top = self._top()
        swept = []
        for entry in list_directory(top):
            if (found := makers.split(entry)) is None or not makers.is_abandoned(entry, dir_fd=top):
                continue
            doomed = makers.removing(found[0])
            try:
                os.rename(entry, doomed, src_dir_fd=top, dst_dir_fd=top)
            except OSError:
                continue  # another sweeper has it, or this process removes the like
            remove_tree(doomed, dir_fd=top, userns_fd=userns_fd)
            swept.append(entry)
        return swept + self.names.sweep()


def _write(path: str, data: bytes, *, dir_fd: int, durable: bool) -> None:
    fd = os.open(path, _CREATE, 0o644, dir_fd=dir_fd)
    try:
        os.fchmod(fd, 0o644)  # whatever the umask
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
