# SPDX-License-Identifier: Apache-2.0
"""
Content by digest: an OCI image layout that other tools can read.

A blob becomes visible, under the name of its digest, by one rename after it
was written and checked.  Changes of ``index.json`` and everything that makes
or deletes what it points to happen under one lock, so that nothing is
deleted between being found and being pointed to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from containerlib.errors import CorruptState, DigestMismatch
from containerlib.store import makers
from containerlib.store.locks import locked_directory
from containerlib.store.names import list_directory
from containerlib.store.paths import close_all, open_subdirectory

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_digest(digest: str) -> str:
    """
    Return the hexadecimal part of *digest*, which must be ``sha256:<hex>``.

    Digests become file names: ``sha256:../../x`` must not get that far.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise DigestMismatch(f"{digest!r} is not a sha256 digest", subject=str(digest))
    return digest[7:]


@attrs.frozen(kw_only=True)
class Descriptor:
    """
    A pointer to a blob: media type, digest, size, annotations.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    platform: Mapping[str, Any] | None = attrs.field(default=None, hash=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Descriptor:
        """
        Read a descriptor of a manifest or an index; the digest is checked.
        """
        check_digest(value["digest"])
        return cls(
            media_type=str(value["mediaType"]),
            digest=value["digest"],
            size=int(value["size"]),
            annotations=dict(value.get("annotations") or {}),
            platform=value.get("platform"),
        )

    def to_json(self) -> dict[str, Any]:
        """
        Return the descriptor as OCI writes it.
        """
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform is not None:
            value["platform"] = dict(self.platform)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


class Blobs:
    """
    The layout below *path*: ``oci-layout``, ``index.json``, ``blobs/sha256``.
    """

    def __init__(self, path: Path, *, parent: Callable[[], int]) -> None:
        self._path = path
        self._parent = parent
        self._fds: dict[str, int] = {}
        weakref.finalize(self, close_all, self._fds)
        self._index: tuple[tuple[int, int, int], tuple[Descriptor, ...]] | None = None
        self.derived: dict[str, Any] = {}
        """
        What others have read from blobs, by digest; emptied when the index changes.
        """

    def __repr__(self) -> str:
        return f"<Blobs(path={str(self._path)!r})>"

    def _top(self) -> int:
        if "top" not in self._fds:
            fd = open_subdirectory(self._path.name, dir_fd=self._parent())
            if self._fds.setdefault("top", fd) != fd:
                os.close(fd)
        return self._fds["top"]

    def _blobs(self) -> int:
        if "blobs" not in self._fds:
            above = open_subdirectory("blobs", dir_fd=self._top())
            try:
                fd = open_subdirectory("sha256", dir_fd=above)
            finally:
                os.close(above)
            if self._fds.setdefault("blobs", fd) != fd:
                os.close(fd)
        return self._fds["blobs"]

    def close(self) -> None:
        """
        Close the descriptors that are kept open for speed.
        """
        close_all(self._fds)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """
        Hold the lock under which index, blobs and layers come and go.
        """
        with locked_directory(".", dir_fd=self._top()):
            yield

    # ---- blobs ------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """
        Return where the blob *digest* is, or would be.
        """
        return self._path / "blobs" / "sha256" / check_digest(digest)

    def size(self, digest: str) -> int | None:
        """
        Return the size of the blob, None if the store does not have it.
        """
        try:
            return os.stat(check_digest(digest), dir_fd=self._blobs(), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def open(self, digest: str) -> int:
        """
        Open the blob for reading; the caller closes the descriptor.
        """
        try:
            return os.open(
                check_digest(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._blobs()
            )
        except FileNotFoundError:
            raise CorruptState(f"the store has no blob {digest} in {self._path}", subject=digest) from None

    def read(self, digest: str) -> bytes:
        """
        Return a small blob, checked against its digest.
        """
        with open(self.open(digest), "rb") as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != check_digest(digest):
            raise CorruptState(
                f"the blob {self.path(digest)} is damaged: its content has another digest", subject=digest
            )
        return data

    def write(self, data: bytes) -> str:
        """
        Store *data* and return its digest; what is there already stays.
        """
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.size(digest) != len(data):
            temporary = makers.scratch(digest[7:])
            fd = os.open(temporary, _CREATE, 0o600, dir_fd=self._blobs())
            with open(fd, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(fd)
            os.rename(temporary, digest[7:], src_dir_fd=self._blobs(), dst_dir_fd=self._blobs())
        return digest

    def adopt(self, source: str, digest: str, *, dir_fd: int) -> None:
        """
        Move the file *source* below *dir_fd*, whose digest the caller has
        computed while writing it, into the store.
        """
        os.rename(source, check_digest(digest), src_dir_fd=dir_fd, dst_dir_fd=self._blobs())

    def digests(self) -> list[str]:
        """
        Return the digests of all blobs.
        """
        return [f"sha256:{name}" for name in list_directory(self._blobs()) if name[0] != "."]

    def delete(self, digest: str) -> None:
        """
        Delete a blob, inside a transaction that knows it to be unused.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(check_digest(digest), dir_fd=self._blobs())

    # ---- the index --------------------------------------------------------

    def index(self) -> tuple[Descriptor, ...]:
        """
        Return what ``index.json`` points to; empty if there is none yet.
        """
        try:
            fd = os.open("index.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._top())
        except FileNotFoundError:
            return ()
        with open(fd, "rb") as stream:
            found = os.fstat(fd)
            key = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._index is not None and self._index[0] == key:
                return self._index[1]
            data = stream.read()
        try:
            entries = tuple(Descriptor.from_json(entry) for entry in json.loads(data)["manifests"])
        except (ValueError, KeyError, TypeError, DigestMismatch) as error:
            raise CorruptState(
                f"{self._path / 'index.json'} is damaged: {error}", subject=str(self._path / "index.json")
            ) from error
        self._index = key, entries
        self.derived.clear()
        return entries

    def replace_index(self, entries: tuple[Descriptor, ...]) -> None:
        """
        Write ``index.json`` anew, inside a transaction.
        """
        document = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [entry.to_json() for entry in entries],
        }
        self._replace("oci-layout", OCI_LAYOUT, missing_only=True)
        self._replace("index.json", json.dumps(document, indent=1).encode())
        os.fsync(self._top())

    def _replace(self, name: str, data: bytes, *, missing_only: bool = False) -> None:
        top = self._top()
        if missing_only:
            with contextlib.suppress(FileNotFoundError):
                os.stat(name, dir_fd=top)
                return
        temporary = makers.scratch(name)
        fd = os.open(temporary, _CREATE, 0o600, dir_fd=top)
        with open(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=top, dst_dir_fd=top)

    def sweep(self) -> list[str]:
        """
        Delete temporary files whose makers are dead.
        """
        swept = []
        for fd in (self._top(), self._blobs()):
            for name in list_directory(fd):
                if makers.split(name) and makers.is_abandoned(name, dir_fd=fd):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)
                        swept.append(name)
        return swept
