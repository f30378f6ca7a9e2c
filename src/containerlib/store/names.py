# SPDX-License-Identifier: Apache-2.0
"""
Names of objects: claimed with ``symlink``, which fails if the name is taken.

``by-name/<name>`` is a symbolic link whose text is the object's id, and the
object's directory holds a link ``name`` whose text is the name.  A claim
counts while the two agree, or while the object is being made or removed by a
live process.  Any other claim is stale, and the next who wants it has it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from containerlib.errors import Conflict, InvalidOption
from containerlib.store import makers
from containerlib.store.locks import locked_directory

OWN_NAME = "name"


def check_name(name: str, *, kind: str) -> None:
    """
    Refuse a *name* that is not Docker's ``[a-zA-Z0-9][a-zA-Z0-9_.-]+``.
    """
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (1 <= len(name) <= 200 and name.isascii() and plain.isalnum() and name[0].isalnum()):
        raise InvalidOption(
            f"name={name!r}: a {kind}'s name is made of letters, digits, '_', '.' and '-', "
            f"and begins with a letter or digit",
            subject=name,
        )


class Names:
    """
    The claims of one collection.

    *top* and *links* give descriptors of the collection and of ``by-name``.
    """

    def __init__(self, *, top: Callable[[], int], links: Callable[[], int], kind: str) -> None:
        self._top = top
        self._links = links
        self._kind = kind

    def lookup(self, name: str) -> str | None:
        """
        Return the id that *name* points to, if it points anywhere.
        """
        try:
            return os.readlink(name, dir_fd=self._links())
        except (FileNotFoundError, OSError, ValueError):
            return None

    def own(self, entry: str) -> str | None:
        """
        Return the name that the object directory *entry* says it has.
        """
        try:
            return os.readlink(f"{entry}/{OWN_NAME}", dir_fd=self._top())
        except OSError:
            return None

    def claim(self, name: str, id: str) -> None:
        """
        Make *name* point to *id*, or raise Conflict naming the holder.
        """
        links = self._links()
        while True:
            with contextlib.suppress(FileExistsError):
                os.symlink(id, name, dir_fd=links)
                return
            self._drop_stale(name)

    def _drop_stale(self, name: str) -> None:
        with locked_directory(".", dir_fd=self._links()) as links:
            holder = self.lookup(name)
            if holder is None:
                return
            if self._holds(holder, name):
                raise Conflict(
                    f"the name {name!r} is taken by {self._kind} {holder[:12]}; "
                    f"remove or rename that one, or choose another name",
                    subject=name,
                )
            os.unlink(name, dir_fd=links)

    def _holds(self, id: str, name: str) -> bool:
        if (own := self.own(id)) is not None:
            return own == name
        top = self._top()
        if any(
            entry.startswith((f"{makers.MAKING}{id}-", f"{makers.REMOVING}{id}-"))
            and not makers.is_abandoned(entry, dir_fd=top)
            for entry in list_directory(top)
        ):
            return True
        # It may have been committed between the two looks.
        return self.own(id) == name

    def rename(self, id: str, new: str) -> None:
        """
        Give the object *id* the name *new* instead of the one it has.

        All of it under the lock that takers of stale claims hold: between
        its steps the new claim or the old one looks stale.
        """
        top, links = self._top(), self._links()
        # One lock, not two nested: claim() may need it for a stale holder.
        while True:
            with locked_directory(".", dir_fd=links):
                try:
                    os.symlink(id, new, dir_fd=links)
                except FileExistsError:
                    pass
                else:
                    self._swap_own(id, new, top, links)
                    return
            if self.lookup(new) == id and self.own(id) == new:
                return
            self._drop_stale(new)

    def _swap_own(self, id: str, new: str, top: int, links: int) -> None:
        old = self.own(id)
        temporary = f"{id}/.{OWN_NAME}-{makers.identity()}"
        try:
            try:
                os.unlink(temporary, dir_fd=top)
            except FileNotFoundError:
                pass
            os.symlink(new, temporary, dir_fd=top)
            os.rename(temporary, f"{id}/{OWN_NAME}", src_dir_fd=top, dst_dir_fd=top)
        except OSError:
            os.unlink(new, dir_fd=links)
            raise
        if old is not None and self.lookup(old) == id:
            os.unlink(old, dir_fd=links)

    def release(self, name: str, id: str) -> None:
        """
        Drop the claim of *id* on *name*.

        The caller must hold *id* under a temporary name of its own, so that
        nobody else may take the claim for stale meanwhile.
        """
        if self.lookup(name) == id:
            try:
                os.unlink(name, dir_fd=self._links())
            except FileNotFoundError:
                pass

    def sweep(self) -> list[str]:
        """
        Drop every stale claim; returns the names.
        """
        dropped = []
        for name in list_directory(self._links()):
            with locked_directory(".", dir_fd=self._links()) as links:
                holder = self.lookup(name)
                if holder is not None and not self._holds(holder, name):
                    os.unlink(name, dir_fd=links)
                    dropped.append(name)
        return dropped


def list_directory(fd: int) -> list[str]:
    """
    List the directory behind *fd* through a descriptor of its own, because
    threads that list one descriptor share its position.
    """
    own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return os.listdir(own)
    finally:
        os.close(own)
