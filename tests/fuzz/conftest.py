# SPDX-License-Identifier: Apache-2.0
"""
Building and running the fuzzers, with clang's libFuzzer and sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("CONTAINERLIB_FUZZ_SECONDS", "5"))
SHIM = Path(__file__).parent.parent.parent / "src/containerlib/shim"

_FLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=undefined",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Fuzzing takes as long as it is told to.
    """
    for item in items:
        if "fuzz" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(SECONDS + 120))


@pytest.fixture(name="fuzz")
def _fuzz(tmp_path: Path) -> Callable[..., None]:
    """
    Fuzz a program of this directory, linked with sources of the shim, for :data:`SECONDS`.
    """
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")

    def fuzz(program: str, sources: Sequence[str], seeds: Mapping[str, bytes]) -> None:
        directory = tmp_path / "seeds"
        directory.mkdir()
        for name, data in seeds.items():
            (directory / name).write_bytes(data)
        # The sanitizers of the session's own build are gcc's.
        environment = {
            name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")
        }
        files = [Path(__file__).parent / program, *(SHIM / source for source in sources)]
        built = subprocess.run(
            ["clang", *_FLAGS, f"-I{SHIM}", *files, "-o", tmp_path / "fuzzer"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if "cannot find" in built.stderr and "libclang_rt" in built.stderr:
            pytest.skip("clang has no fuzzer (Debian: libclang-rt-14-dev)")
        assert 0 == built.returncode, built.stderr

        ran = subprocess.run(
            [
                "./fuzzer",
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

    return fuzz
