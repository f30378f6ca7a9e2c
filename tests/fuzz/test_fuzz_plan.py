# SPDX-License-Identifier: Apache-2.0
"""
The parser of plans, given bytes that no Python has made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from containerlib import shim

MAGIC, VERSION = 0x6E616C50, 1


def _record(op: int, integers: list[int], strings: list[bytes]) -> bytes:
    body = b"".join(struct.pack("<q", number) for number in integers)
    for text in strings:
        piece = struct.pack("<I", len(text)) + text + b"\0"
        body += piece + bytes(-len(piece) % 8)
    return struct.pack("<IHHII", 16 + len(body), op, len(integers), len(strings), 0) + body


def _plan(records: list[bytes]) -> bytes:
    body = b"".join(records)
    return struct.pack("<IIII", MAGIC, VERSION, 16 + len(body), len(records)) + body


def _seeds() -> dict[str, bytes]:
    """
    A plan for each operation, with as much in it as any needs, and one with all of them.
    """
    records = {
        op.name.lower(): _record(op, list(range(8)), [b"", b"/x", b"name=value", b"sh"]) for op in shim.Op
    }
    seeds = {name: _plan([record]) for name, record in records.items()}
    return seeds | {"all": _plan(list(records.values())), "empty": _plan([])}


@pytest.mark.parametrize("name", _seeds())
def test_seeds_are_plans(name: str) -> None:
    """
    The fuzzer starts from plans that are taken, so that it gets past the first check.
    """
    shim.check_plan(_seeds()[name])


def test_any_bytes_are_refused_or_readable(fuzz: Callable[..., None]) -> None:
    """
    No bytes make the parser read outside of the plan, under ASan and UBSan.
    """
    fuzz("fuzz_plan.c", ["plan.c", "error.c"], _seeds())
