# SPDX-License-Identifier: Apache-2.0
"""
What a container uses, read from its groups and from its network namespace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from containerlib.runtime.cgroups.layout import read_words
from containerlib.runtime.cgroups.operate import directory_for
from containerlib.runtime.cgroups.plan import CgroupDirectory
from containerlib.types import Stats

_NO_LIMIT = 1 << 62
"""
Version 1 has no word for no limit: it is the largest number of pages.
"""


def read_stats(directories: Sequence[CgroupDirectory], pid: int | None = None) -> Stats:
    """
    The usage of the container whose groups are *directories* and whose first
    process is *pid*.

    What the host does not count is None.  ``Stats.since`` compares with an
    earlier sample.
    """
    now = datetime.now(UTC)
    values: dict[str, float | None] = {}
    for controller, one, two in (
        ("cpuacct", _cpu_v1, _cpu_v2),
        ("cpu", _throttling_v1, _throttling_v2),
        ("memory", _memory_v1, _memory_v2),
        ("pids", _pids, _pids),
        ("blkio", _block_v1, _block_v2),
    ):
        directory = directory_for(directories, controller)
        if directory is not None:
            read = one if directory.version == 1 else two
            values.update(read(directory.path))
    if pid:
        values.update(_network(pid))
    return Stats(time=now, online_cpus=len(os.sched_getaffinity(0)), **values)  # type: ignore[arg-type]


def parse_flat(text: str) -> dict[str, int]:
    """
    A file of lines ``key value``; lines of any other form are skipped.
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isascii() and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def parse_io_stat(text: str) -> dict[str, int]:
    """
    Version 2's ``io.stat``, summed up over the devices.
    """
    totals: dict[str, int] = {}
    for line in text.splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if value.isascii() and value.isdigit():
                totals[key] = totals.get(key, 0) + int(value)
    return totals


def parse_blkio(text: str) -> tuple[int, int]:
    """
    (read, written) of a ``blkio`` file of version 1, over all devices.
    """
    totals = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in totals and words[2].isascii() and words[2].isdigit():
            totals[words[1]] += int(words[2])
    return totals["Read"], totals["Write"]


def parse_net_dev(text: str) -> dict[str, tuple[int, int]]:
    """
    (received, sent) bytes of each interface of a ``/proc/<pid>/net/dev``,
    the loopback left out.
    """
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.rpartition(":")
        numbers = rest.split()
        if (
            colon
            and name.strip() != "lo"
            and len(numbers) >= 9
            and numbers[0].isdigit()
            and numbers[8].isdigit()
        ):
            found[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return found


def _text(path: str) -> str:
    """
    A file's text, none if it or its group is not there.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    """
    A file's only number; None for no such file, and for no limit.
    """
    words = read_words(path)
    if not words or not words[0].isdigit():
        return None
    number = int(words[0])
    return number if number < _NO_LIMIT else None


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _present(**values: float | None) -> dict[str, float | None]:
    """
    The values that are known: Stats has defaults for the others.
    """
    return {key: value for key, value in values.items() if value is not None}


def _cpu_v1(path: str) -> dict[str, float | None]:
    return _present(
        cpu_total=_seconds(_number(f"{path}/cpuacct.usage")),
        cpu_user=_seconds(_number(f"{path}/cpuacct.usage_user")),
        cpu_system=_seconds(_number(f"{path}/cpuacct.usage_sys")),
    )


def _cpu_v2(path: str) -> dict[str, float | None]:
    flat = parse_flat(_text(f"{path}/cpu.stat"))
    return {
        field: flat[key] / 1e6
        for field, key in (
            ("cpu_total", "usage_usec"),
            ("cpu_user", "user_usec"),
            ("cpu_system", "system_usec"),
        )
        if key in flat
    }


def _throttling(flat: Mapping[str, int], key: str, unit: float) -> dict[str, float | None]:
    time = flat.get(key)
    return _present(
        cpu_periods=flat.get("nr_periods"),
        cpu_throttled_periods=flat.get("nr_throttled"),
        cpu_throttled=None if time is None else time / unit,
    )


def _throttling_v1(path: str) -> dict[str, float | None]:
    return _throttling(parse_flat(_text(f"{path}/cpu.stat")), "throttled_time", 1e9)


def _throttling_v2(path: str) -> dict[str, float | None]:
    return _throttling(parse_flat(_text(f"{path}/cpu.stat")), "throttled_usec", 1e6)


def _memory_v1(path: str) -> dict[str, float | None]:
    flat = parse_flat(_text(f"{path}/memory.stat"))
    oom = parse_flat(_text(f"{path}/memory.oom_control"))
    memory = _number(f"{path}/memory.usage_in_bytes")
    both = _number(f"{path}/memory.memsw.usage_in_bytes")
    swap = flat.get("total_swap", None if memory is None or both is None else max(0, both - memory))
    return _present(
        memory=memory,
        memory_limit=_number(f"{path}/memory.limit_in_bytes"),
        memory_peak=_number(f"{path}/memory.max_usage_in_bytes"),
        memory_cache=flat.get("total_inactive_file"),
        swap=swap,
        oom_kills=oom.get("oom_kill"),
    )


def _memory_v2(path: str) -> dict[str, float | None]:
    return _present(
        memory=_number(f"{path}/memory.current"),
        memory_limit=_number(f"{path}/memory.max"),
        memory_peak=_number(f"{path}/memory.peak"),
        memory_cache=parse_flat(_text(f"{path}/memory.stat")).get("inactive_file"),
        swap=_number(f"{path}/memory.swap.current"),
        oom_kills=parse_flat(_text(f"{path}/memory.events")).get("oom_kill"),
    )


def _pids(path: str) -> dict[str, float | None]:
    return _present(pids=_number(f"{path}/pids.current"), pids_limit=_number(f"{path}/pids.max"))


def _block_v1(path: str) -> dict[str, float | None]:
    moved = _text(f"{path}/blkio.throttle.io_service_bytes_recursive") or _text(
        f"{path}/blkio.throttle.io_service_bytes"
    )
    counted = _text(f"{path}/blkio.throttle.io_serviced_recursive") or _text(
        f"{path}/blkio.throttle.io_serviced"
    )
    if not moved:
        return {}
    read, written = parse_blkio(moved)
    reads, writes = parse_blkio(counted)
    return {"block_read": read, "block_write": written, "block_reads": reads, "block_writes": writes}


def _block_v2(path: str) -> dict[str, float | None]:
    if not os.path.exists(f"{path}/io.stat"):
        return {}
    totals = parse_io_stat(_text(f"{path}/io.stat"))
    return {
        field: totals.get(key, 0)
        for field, key in (
            ("block_read", "rbytes"),
            ("block_write", "wbytes"),
            ("block_reads", "rios"),
            ("block_writes", "wios"),
        )
    }


def _network(pid: int) -> dict[str, float | None]:
    """
    The bytes of the network namespace that *pid* is in.

    A container in the host's namespace has no counters of its own.
    """
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return {}
    except OSError:
        return {}
    interfaces = parse_net_dev(_text(f"/proc/{pid}/net/dev"))
    return {
        "network_received": sum(received for received, _ in interfaces.values()),
        "network_sent": sum(sent for _, sent in interfaces.values()),
    }
