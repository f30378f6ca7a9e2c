# SPDX-License-Identifier: Apache-2.0
"""
Reading a directory tree as the entries of an archive.

The same tree gives the same entries in the same order on every machine.
Nothing is followed: each directory is opened below the one that holds it.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

import attrs

from containerlib.images.archive import BLOCK, Entry, is_kept
from containerlib.store.paths import DIRECTORY

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@attrs.define(eq=False)
class Walker:
    """
    Walks the tree behind a directory descriptor.

    Sockets are left out, and so is what lies on other file systems when
    *one_file_system* is set.
    """

    fd: int
    one_file_system: bool = False
    _links: dict[tuple[int, int], bytes] = attrs.field(factory=dict, init=False)

    def entries(self) -> Iterator[tuple[Entry, int]]:
        """
        Yield each entry, with a descriptor of a file's content or -1.

        The descriptor is closed when the next entry is asked for.
        """
        found = os.fstat(self.fd)
        yield self._describe(b"", found, xattrs=_read_xattrs(self.fd)), -1
        yield from self._walk(self.fd, b"", found.st_dev)

    def _walk(self, top: int, prefix: bytes, device: int) -> Iterator[tuple[Entry, int]]:
        # One open directory a level, on a list: nested generators are slow, and depth is not ours to choose.
        levels = [(os.dup(top), prefix, iter(sorted(_names(top))))]
        try:
            while levels:
                fd, prefix, names = levels[-1]
                name = next(names, None)
                if name is None:
                    os.close(levels.pop()[0])
                    continue
                path = prefix + name
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if self.one_file_system and found.st_dev != device:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    below = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                    levels.append((below, path + b"/", iter(sorted(_names(below)))))
                    yield self._describe(path, found, xattrs=_read_xattrs(below)), -1
                elif stat.S_ISREG(found.st_mode):
                    yield from self._file(fd, name, path, found)
                elif not stat.S_ISSOCK(found.st_mode):
                    yield self._special(fd, name, path, found), -1
        finally:
            for fd, _, _ in levels:
                os.close(fd)

    def _file(self, fd: int, name: bytes, path: bytes, found: os.stat_result) -> Iterator[tuple[Entry, int]]:
        if (link := self._linked(path, found)) is not None:
            yield link, -1
            return
        file = os.open(name, _FILE, dir_fd=fd)
        try:
            found = os.fstat(file)  # what is open, should the name have changed hands
            entry = self._describe(path, found, xattrs=_read_xattrs(file))
            entry.size = found.st_size
            yield entry, file
        finally:
            os.close(file)

    def _special(self, fd: int, name: bytes, path: bytes, found: os.stat_result) -> Entry:
        if (link := self._linked(path, found)) is not None:
            return link
        entry = self._describe(path, found)
        if entry.kind == "symlink":
            entry.link = os.readlink(name, dir_fd=fd)
        return entry

    def _linked(self, path: bytes, found: os.stat_result) -> Entry | None:
        if found.st_nlink < 2:
            return None
        first = self._links.setdefault((found.st_dev, found.st_ino), path)
        return None if first == path else Entry(kind="hardlink", path=path, link=first)

    def _describe(
        self, path: bytes, found: os.stat_result, *, xattrs: dict[bytes, bytes] | None = None
    ) -> Entry:
        kinds = {
            stat.S_IFREG: "file",
            stat.S_IFDIR: "directory",
            stat.S_IFLNK: "symlink",
            stat.S_IFIFO: "fifo",
            stat.S_IFCHR: "char",
            stat.S_IFBLK: "block",
        }
        return Entry(
            kind=kinds[stat.S_IFMT(found.st_mode)],
            path=path,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=found.st_mtime_ns,
            major=os.major(found.st_rdev),
            minor=os.minor(found.st_rdev),
            xattrs=xattrs or {},
        )


def _names(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(fd)]


def _read_xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    found = {}
    for name in names:
        if is_kept(os.fsencode(name)):
            try:
                found[os.fsencode(name)] = os.getxattr(fd, name)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES, errno.ENOTSUP):
                    raise
    return found


_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


def header(entry: Entry) -> bytes:
    """
    Write the tar header of an entry, PAX where ustar has no room.
    """
    info = tarfile.TarInfo((entry.path or b".").decode("utf-8", "surrogateescape"))
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid, info.size = entry.mode, entry.uid, entry.gid, entry.size
    info.linkname = entry.link.decode("utf-8", "surrogateescape")
    info.devmajor, info.devminor = entry.major, entry.minor
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    headers: dict[str, str] = {}
    if nanoseconds or seconds < 0:
        sign, whole = ("-", -entry.mtime_ns) if entry.mtime_ns < 0 else ("", entry.mtime_ns)
        headers["mtime"] = f"{sign}{whole // 10**9}.{whole % 10**9:09d}".rstrip("0").rstrip(".")
        info.mtime = max(0, seconds)
    for name, value in sorted(entry.xattrs.items()):
        headers["SCHILY.xattr." + name.decode("utf-8", "surrogateescape")] = value.decode(
            "utf-8", "surrogateescape"
        )
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def write_tar(fd: int, out: IO[bytes], *, one_file_system: bool = False) -> None:
    """
    Write the tree behind *fd* as a tar archive.
    """
    for entry, file in Walker(fd, one_file_system).entries():
        out.write(header(entry))
        if file >= 0:
            _copy(file, out, entry)
    out.write(b"\0" * (2 * BLOCK))


def _copy(file: int, out: IO[bytes], entry: Entry) -> None:
    left = entry.size
    while left > 0:
        data = os.read(file, min(left, 1 << 20))
        if not data:
            # It shrank while it was read; the header has promised its size.
            data = b"\0" * min(left, 1 << 20)
        out.write(data)
        left -= len(data)
    out.write(b"\0" * (-entry.size % BLOCK))
