# SPDX-License-Identifier: Apache-2.0
"""
The plan: one flat blob of what the helper will do, in order.

Everything that needs thought happens before it is built; C only acts on it.
The header in ``shim/`` describes the records, and which operands each takes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from containerlib.shim import PLAN_MAGIC, PLAN_VERSION

if TYPE_CHECKING:
    from containerlib.shim import Op

# linux/fcntl.h, Linux 5.1.  Not F_SEAL_WRITE: before 6.7 it forbids shared mappings that only read, too.
_SEAL_FUTURE_WRITE = 0x0010
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
_HEADER = struct.Struct("=IIII")
_PADDING = tuple(b"\0" * n for n in range(9))


@lru_cache(maxsize=64)
def _record(ints: int) -> struct.Struct:
    return struct.Struct(f"=IHHII{ints}q")


def _encode(op: int, ints: tuple[int, ...], strings: tuple[str | bytes, ...]) -> bytes:
    """
    One record.
    """
    parts = [b""]
    size = 16 + 8 * len(ints)
    for text in strings:
        data = text if isinstance(text, bytes) else os.fsencode(text)
        length = len(data)
        if b"\0" in data and isinstance(text, str):
            raise ValueError(f"NUL in {text!r}")
        filled = length + 5
        padding = -filled % 8
        parts.append(length.to_bytes(4, sys.byteorder) + data + _PADDING[1 + padding])
        size += filled + padding
    parts[0] = _record(len(ints)).pack(size, op, len(ints), len(strings), 0, *ints)
    return b"".join(parts)


# Nearly all records of one start are those of the start before.
_encode_again = lru_cache(maxsize=512)(_encode)


class Plan:
    """
    A plan being written; :meth:`build` gives the blob.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, op: Op, *ints: int, strings: tuple[str | bytes, ...] = ()) -> None:
        """
        Append one record.
        """
        self._parts.append(_encode_again(op, ints, strings))

    def add_private(self, op: Op, *ints: int, strings: tuple[str | bytes, ...] = ()) -> None:
        """
        Append one record that is not kept for the next plan: it may hold
        secrets.
        """
        self._parts.append(_encode(op, ints, strings))

    def build(self) -> bytes:
        """
        The whole blob.
        """
        body = b"".join(self._parts)
        return _HEADER.pack(PLAN_MAGIC, PLAN_VERSION, len(body) + 16, len(self._parts)) + body

    def memfd(self) -> int:
        """
        The blob in a memfd that nobody can change; the caller closes it.
        """
        fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, self.build())
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd
