# SPDX-License-Identifier: Apache-2.0
"""
The parser of plans, given bytes that no Python has made.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from containerlib import shim

SECONDS = int(os.environ.get("CONTAINERLIB_FUZZ_SECONDS", "5"))
SHIM = Path(__file__).parent.parent.parent / "src/containerlib/shim"
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


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_any_bytes_are_refused_or_readable(tmp_path: Path) -> None:
    """
    No bytes make the parser read outside of the plan, under ASan and UBSan.
    """
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for name, data in _seeds().items():
        (seeds / name).write_bytes(data)
    # The sanitizers of the session's own build are gcc's.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")
    }
    flags = [
        "-std=gnu11",
        "-O1",
        "-g",
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=undefined",
    ]
    sources = [Path(__file__).parent / "fuzz_plan.c", SHIM / "plan.c", SHIM / "error.c"]
    built = subprocess.run(
        ["clang", *flags, f"-I{SHIM}", *sources, "-o", tmp_path / "fuzz_plan"],
        env=environment,
        capture_output=True,
        text=True,
    )
    if "cannot find" in built.stderr and "libclang_rt" in built.stderr:
        pytest.skip("clang has no fuzzer (Debian: libclang-rt-14-dev)")
    assert 0 == built.returncode, built.stderr

    ran = subprocess.run(
        [
            "./fuzz_plan",
            f"-max_total_time={SECONDS}",
            "-max_len=4096",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "seeds",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert 0 == ran.returncode, ran.stderr[-4000:]
