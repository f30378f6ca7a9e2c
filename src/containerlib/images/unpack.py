# SPDX-License-Identifier: Apache-2.0
"""
Making files by the helper: this writes the stream that ``unpack.c`` reads.

The records are those of ``shim/init/trees.h``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

from containerlib import shim
from containerlib.errors import NotSupported
from containerlib.images.archive import Entry
from containerlib.shim import forks
from containerlib.store.trees import helper_error

MAGIC = 0x7972746E
HEADER = struct.Struct("=IHH6IqQ4I").pack  # struct cl_entry
XATTR = struct.Struct("=II").pack
SEGMENT = struct.Struct("=QQ").pack

END, FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO, CHAR, BLOCK, FINISH = range(9)
_TYPES = {
    "file": FILE,
    "directory": DIRECTORY,
    "symlink": SYMLINK,
    "hardlink": HARDLINK,
    "fifo": FIFO,
    "char": CHAR,
    "block": BLOCK,
}

CHUNK = 1 << 20


class Unpacker:
    """
    A helper that makes what it is told below the directory behind *fd*.

    *userns_fd* is a user namespace to work in.  With *single_id* everything
    belongs to the one user there is, whatever the entries say.  A context
    manager; what was made counts only after `finish`.
    """

    def __init__(
        self, fd: int, *, userns_fd: int | None = None, single_id: bool = False, sync: bool = True
    ) -> None:
        root = os.geteuid() == 0
        single_id = single_id or (userns_fd is None and not root)
        self._devices = root and userns_fd is None
        self._directories: dict[bytes, Entry] = {}
        argv = ["containerlib-init", "unpack"]
        if userns_fd is not None:
            argv.append("--userns")
        if not single_id:
            argv.append("--keep-owner")
        if not self._devices:
            argv.append("--lenient")
        if sync:
            argv.append("--sync")
        stream_reader, stream_writer = os.pipe2(os.O_CLOEXEC)
        self._error, error_writer = forks.pipe()
        try:
            self._child = shim.spawn(
                argv,
                fds=[-1, -1, -1, stream_reader, fd, error_writer, -1 if userns_fd is None else userns_fd],
            )
        except BaseException:
            os.close(stream_writer)
            forks.close(self._error)
            raise
        finally:
            os.close(stream_reader)
            forks.close(error_writer)
        with contextlib.suppress(OSError):  # over the user's limit for pipes
            fcntl.fcntl(stream_writer, fcntl.F_SETPIPE_SZ, CHUNK)
        self._stream = open(stream_writer, "wb", buffering=CHUNK)  # noqa: SIM115  # closed by _end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> bytes:
        """
        Close the stream and wait; returns the helper's error record.
        """
        with contextlib.suppress(BrokenPipeError):
            self._stream.close()
        record = b""
        if self._error >= 0:
            while part := os.read(self._error, 4096):
                record += part
            forks.close(self._error)
            self._error = -1
        self._child.wait()
        return record

    def _fail(self, entry: Entry | None) -> Exception:
        record = self._end()
        path = entry.path.decode(errors="replace") if entry else ""
        error = helper_error("unpack", record, self._child.wait(), path=path)
        if error.errno == 22 and entry is not None and error.args[0].startswith("chown"):
            return NotSupported(
                f"{error.args[0]}: the id is not among those that this user may use; "
                f"give the user a larger range in /etc/subuid and /etc/subgid",
                subject=path,
            )
        return error

    def add(self, entry: Entry, read: Callable[[int], bytes] | None = None) -> None:
        """
        Make one entry; *read* gives the content of a file.

        Devices are left out where none can be made: in a user namespace, and
        of number 0:0 everywhere, since overlayfs takes that for a whiteout.
        """
        kind = _TYPES[entry.kind]
        if kind in (CHAR, BLOCK) and (not self._devices or (entry.major, entry.minor) == (0, 0)):
            return
        try:
            self._write(entry, kind)
            if kind == FILE:
                self._write_content(entry, read)
        except BrokenPipeError:
            raise self._fail(entry) from None
        if kind == DIRECTORY:
            self._directories[entry.path] = entry
        elif entry.path in self._directories:
            del self._directories[entry.path]

    def _write(self, entry: Entry, kind: int) -> None:
        path, link = entry.path + b"\0", entry.link + b"\0"
        xattrs = b""
        if kind in (FILE, DIRECTORY):
            xattrs = b"".join(
                XATTR(len(name) + 1, len(value)) + name + b"\0" + value
                for name, value in entry.xattrs.items()
            )
        seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
        header = HEADER(
            MAGIC,
            kind,
            len(entry.xattrs) if xattrs else 0,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.major,
            entry.minor,
            nanoseconds,
            seconds,
            entry.size,
            len(path),
            len(link),
            len(xattrs),
            len(entry.segments or ()),
        )
        self._stream.write(b"".join((header, path, link, xattrs)))

    def _write_content(self, entry: Entry, read: Callable[[int], bytes] | None) -> None:
        for offset, size in entry.segments or [(0, entry.size)]:
            if entry.segments is not None:
                self._stream.write(SEGMENT(offset, size))
            while size > 0:
                data = read(min(size, CHUNK)) if read is not None else b""
                if not data:
                    raise ValueError(f"no content for {entry.path!r}")
                self._stream.write(data)
                size -= len(data)

    def finish(self) -> None:
        """
        Set the times and modes of directories, bring everything to the disk
        and wait for the helper.

        Raises:
            KernelError: Something could not be made; names it.
        """
        last: Entry | None = None
        try:
            # What is deepest comes first: a directory may close itself to its owner.
            for path in sorted(self._directories, reverse=True):
                last = self._directories[path]
                self._write(last, FINISH)
            last = None
            self._stream.write(HEADER(MAGIC, END, 0, *[0] * 12))
            self._stream.flush()
        except BrokenPipeError:
            raise self._fail(last) from None
        record = self._end()
        if record or self._child.wait() != 0:
            raise helper_error("unpack", record, self._child.wait(), path="")
