# SPDX-License-Identifier: Apache-2.0
"""
The plan: one flat blob of what the helper will do, in order.

Everything that needs thought happens before it is built; C only acts on it.
The header in ``shim/`` describes the records, and which operands each takes.
"""

from __future__ import annotations

import os
import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from containerlib.shim import PLAN_MAGIC, PLAN_VERSION

if TYPE_CHECKING:
    from containerlib.shim import Op

_HEADER = struct.Struct("=IIII")
_PADDING = tuple(b"\0" * n for n in range(9))


@lru_cache(maxsize=64)
def _record(ints: int) -> struct.Struct:
    return struct.Struct(f"=IHHHHI{ints}q")


class Plan:
    """
    A plan being written; :meth:`build` gives the blob.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, op: Op, *ints: int, strings: tuple[str | bytes, ...] = ()) -> None:
        """
        Append one record.
        """
        parts = []
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
        head = _record(len(ints)).pack(size, op, len(ints), len(strings), 0, 0, *ints)
        self._parts.append(head)
        self._parts += parts
        self._count += 1

    def build(self) -> bytes:
        """
        The whole blob.
        """
        body = b"".join(self._parts)
        return _HEADER.pack(PLAN_MAGIC, PLAN_VERSION, len(body) + 16, self._count) + body

    def memfd(self) -> int:
        """
        The blob in a memfd; the caller closes it.
        """
        fd = os.memfd_create("plan", os.MFD_CLOEXEC)
        try:
            os.write(fd, self.build())
        except BaseException:
            os.close(fd)
            raise
        return fd
