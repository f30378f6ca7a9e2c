# SPDX-License-Identifier: Apache-2.0
"""
Reading tar archives: headers by ``tarfile``, everything else here.

``tarfile`` only decodes headers (ustar, PAX, GNU, base-256 numbers, sparse
maps).  It never sees the file system, and what it returns is checked: its
own extraction filters have been bypassed again and again.
"""

from __future__ import annotations

import base64
import io
import tarfile
import urllib.parse
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, cast

import attrs

from containerlib.errors import InvalidArchive

BLOCK = 512
HEADER_BYTES = 16 * 1024 * 1024
"""
What the headers of one entry may take together, sparse map included.
"""


@attrs.frozen(kw_only=True)
class Limits:
    """
    How much an archive may unpack to.

    *size* bounds the sum of the sizes that the files will show, so that
    sparse files, whose archive is tiny, count in full.
    """

    entries: int = 5_000_000
    size: int = 1 << 40


@attrs.define(kw_only=True, eq=False)
class Entry:
    """
    One entry of an archive; *path* is clean, and empty for the root itself.

    *kind* is ``file directory symlink hardlink fifo char block``.
    """

    kind: str
    path: bytes
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = attrs.Factory(dict)
    segments: list[tuple[int, int]] | None = None


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}
_IGNORED = (b"V", b"M", b"D", b"N")  # GNU's volume headers, continuations and directory lists


class _Position:
    """
    A forward-only stream that knows where it is and how much it may read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.at = 0
        self.budget = HEADER_BYTES

    def read(self, size: int) -> bytes:
        """
        Read header bytes for ``tarfile``, within the budget of an entry.
        """
        self.budget -= size
        if size < 0 or self.budget < 0:
            raise InvalidArchive(
                f"the headers of the entry at byte {self.at} take more than {HEADER_BYTES} bytes"
            )
        return self.take(size)

    def take(self, size: int) -> bytes:
        """
        Read up to *size* bytes of content.
        """
        data = self.stream.read(size)
        self.at += len(data)
        return data

    def tell(self) -> int:
        return self.at


class TarReader:
    """
    The entries of a tar archive that is read once, from front to back.

    Iterate over the entries; `read` returns the content of the present one.
    """

    def __init__(self, stream: IO[bytes], *, limits: Limits | None = None) -> None:
        self._source = _Position(stream)
        self._limits = limits or Limits()
        self._left = 0
        self._total = 0
        # `tarfile` reads headers for its own object; mode "w" makes one that has read nothing yet.
        self._tar = tarfile.TarFile(
            fileobj=io.BytesIO(),
            mode="w",
            encoding="utf-8",
            errors="surrogateescape",
            format=tarfile.PAX_FORMAT,
        )
        self._tar.fileobj = self._source  # type: ignore[assignment]  # what fromtarfile() needs of it

    @property
    def total(self) -> int:
        """
        The sizes of all files seen so far, holes included.
        """
        return self._total

    def __iter__(self) -> Iterator[Entry]:
        count = 0
        while (info := self._next()) is not None:
            if info.type in _IGNORED:
                continue
            count += 1
            if count > self._limits.entries:
                raise InvalidArchive(f"the archive has more than {self._limits.entries} entries")
            yield self._entry(info)

    def _next(self) -> tarfile.TarInfo | None:
        """
        Read the next header; None at the end of the archive.
        """
        source = self._source
        self._skip_to(self._tar.offset)
        source.budget = HEADER_BYTES
        start = source.at
        try:
            info = tarfile.TarInfo.fromtarfile(self._tar)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError) as error:  # type: ignore[attr-defined]
            if start == 0 and isinstance(error, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
                raise InvalidArchive("the archive is empty: not even an end mark") from error
            return None
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, IndexError, KeyError) as error:
            if isinstance(error, InvalidArchive):
                raise
            raise InvalidArchive(f"no tar header at byte {start}: {error}") from error
        self._left = self._tar.offset - source.at
        if self._left < 0 or info.size < 0:
            raise InvalidArchive(f"{info.name!r}: the header gives a size that cannot be")
        return info

    def _skip_to(self, offset: int) -> None:
        left = offset - self._source.at
        while left > 0:
            data = self._source.take(min(left, 1 << 20))
            if not data:
                raise InvalidArchive(f"the archive ends at byte {self._source.at}, in the middle of a file")
            left -= len(data)

    def _entry(self, info: tarfile.TarInfo) -> Entry:
        kind = _KINDS.get(info.type)
        if kind is None:
            raise InvalidArchive(f"{info.name!r}: entries of type {info.type!r} are not known")
        path = clean_path(_bytes(info.name), name=info.name)
        if not path and kind != "directory":
            raise InvalidArchive(f"{info.name!r}: the root directory cannot be a {kind}")
        entry = Entry(
            kind=kind,
            path=path,
            mode=info.mode & 0o7777,
            uid=_id(info.uid, info),
            gid=_id(info.gid, info),
            mtime_ns=_mtime(info),
        )
        if kind == "file":
            entry.size = info.size
            entry.segments = self._segments(info)
            self._total += info.size
            if self._total > self._limits.size:
                raise InvalidArchive(
                    f"{info.name!r}: the archive unpacks to more than {self._limits.size} bytes"
                )
        elif kind == "hardlink":
            entry.link = clean_path(_bytes(info.linkname), name=info.linkname)
            if not entry.link:
                raise InvalidArchive(f"{info.name!r}: a hard link to the root directory")
        elif kind == "symlink":
            entry.link = _bytes(info.linkname)
            if not entry.link or b"\0" in entry.link:
                raise InvalidArchive(f"{info.name!r}: a symbolic link without a target")
        elif kind in ("char", "block"):
            entry.major, entry.minor = info.devmajor & 0xFFFFFFFF, info.devminor & 0xFFFFFFFF
        entry.xattrs = _xattrs(info.pax_headers)
        return entry

    def _segments(self, info: tarfile.TarInfo) -> list[tuple[int, int]] | None:
        sparse = cast("list[tuple[int, int]] | None", info.sparse)
        if sparse is None:
            if self._left < info.size:
                raise InvalidArchive(f"{info.name!r}: the header gives a size that cannot be")
            self._left = info.size
            return None
        stored, end = 0, 0
        # Old GNU headers have four places for the map, empty ones included.
        sparse = [(offset, size) for offset, size in sparse if size]
        for offset, size in sparse:
            if offset < end or size < 0 or offset + size > info.size:
                raise InvalidArchive(f"{info.name!r}: its sparse map is not in order")
            stored, end = stored + size, offset + size
        if stored > self._left:
            raise InvalidArchive(f"{info.name!r}: its sparse map has more data than the archive")
        self._left = stored
        return sparse or [(0, 0)]

    def read(self, size: int) -> bytes:
        """
        Return up to *size* bytes of the present entry's stored content.
        """
        size = min(size, self._left)
        if size == 0:
            return b""
        data = self._source.take(size)
        if not data:
            raise InvalidArchive(f"the archive ends at byte {self._source.at}, in the middle of a file")
        self._left -= len(data)
        return data

    def drain(self) -> None:
        """
        Read what follows the end mark, so that hashes cover all of it.
        """
        while self._source.take(1 << 20):
            pass


def clean_path(path: bytes, *, name: str) -> bytes:
    """
    Return *path* relative to the root, without ``.`` and empty components.

    Raises:
        InvalidArchive: It has a ``..`` or a NUL.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in path:
        raise InvalidArchive(f"{name!r}: a path that leads out of the archive", subject=name)
    return b"/".join(parts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _id(value: int, info: tarfile.TarInfo) -> int:
    if not 0 <= value < 0xFFFFFFFF:
        raise InvalidArchive(f"{info.name!r}: {value} is not a user or group id")
    return value


def _mtime(info: tarfile.TarInfo) -> int:
    try:
        # tarfile gives a float, which has no room for nanoseconds.
        nanoseconds = int(Decimal(info.pax_headers.get("mtime", info.mtime)) * 1_000_000_000)
    except (InvalidOperation, ValueError, OverflowError):
        nanoseconds = 0
    return max(-(2**31) * 10**9, min(nanoseconds, (2**34 - 1) * 10**9))  # what ext4 can hold


def _xattrs(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """
    Return the extended attributes that may come from an archive.
    """
    found = {}
    for key, value in headers.items():
        if key.startswith("SCHILY.xattr."):
            name, data = _bytes(key[13:]), _bytes(value)
        elif key.startswith("LIBARCHIVE.xattr."):
            name = urllib.parse.unquote_to_bytes(key[17:])
            try:
                data = base64.b64decode(value + "=" * (-len(value) % 4))
            except ValueError:
                continue
        else:
            continue
        if is_kept(name) and len(data) <= 65536:
            found[name] = data
    return found


def is_kept(name: bytes) -> bool:
    """
    Say whether an extended attribute means the same on any host.

    ``trusted.overlay.*`` and ``user.overlay.*`` would be taken for the
    storage driver's own, labels of security modules are the host's.
    """
    if b"\0" in name or len(name) > 255:
        return False
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
