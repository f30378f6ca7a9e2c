# SPDX-License-Identifier: Apache-2.0
"""
Compressed streams, told by their first bytes and never by their name.
"""

from __future__ import annotations

import importlib
import io
from types import ModuleType
from typing import IO, Any, cast

from containerlib.errors import NotSupported

_SKIPPABLE = range(0x50, 0x60)  # first byte of zstd frames that hold no content


def detect(head: bytes) -> str:
    """
    Return ``gzip``, ``bzip2``, ``xz``, ``zstd`` or, for anything else, ``plain``.
    """
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] in _SKIPPABLE):
        return "zstd"
    return "plain"


def zstd_module() -> ModuleType:
    """
    Return the zstd module of the standard library, or its backport.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NotSupported("zstd needs Python 3.14 or the package backports.zstd; pip install backports.zstd")


def decompressed(stream: io.BufferedReader[Any], kind: str) -> IO[bytes]:
    """
    Return the content of *stream*, which is compressed with *kind*.

    Several members or frames one after the other are one content.
    """
    if kind == "gzip":
        try:  # twice as fast as zlib
            igzip = importlib.import_module("isal.igzip")
        except ImportError:
            igzip = importlib.import_module("gzip")
        return cast("IO[bytes]", igzip.GzipFile(fileobj=stream, mode="rb"))
    if kind == "bzip2":
        return cast("IO[bytes]", importlib.import_module("bz2").BZ2File(stream, "rb"))
    if kind == "xz":
        return cast("IO[bytes]", importlib.import_module("lzma").LZMAFile(stream, "rb"))
    if kind == "zstd":
        return cast("IO[bytes]", zstd_module().ZstdFile(stream, "rb"))
    return stream
