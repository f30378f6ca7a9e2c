# SPDX-License-Identifier: Apache-2.0
"""
Clocks, rounds and the printed report of start.py.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers import Containerlib, Peer

OWN = "containerlib"


class Times:
    """
    What each runtime took, run by run, in ms; and the processor time of the
    caller and its children, as a whole.
    """

    def __init__(self) -> None:
        self.walls: dict[str, list[float]] = {}
        self._processor: dict[str, float] = {}

    def add(self, name: str, calls: int, call: Callable[[], None], *, before: float = 0) -> None:
        """
        Time *call* so many times, each after a pause of *before* seconds.
        """
        walls = self.walls.setdefault(name, [])
        start = _processor_time()
        for _ in range(calls):
            if before:
                time.sleep(before)
            walls.append(clock(call))
        self._processor[name] = self._processor.get(name, 0) + _processor_time() - start

    def median(self, name: str) -> float:
        return statistics.median(self.walls[name])

    def processor(self, name: str) -> float:
        """
        User and system time of one run.
        """
        return self._processor.get(name, 0) / len(self.walls[name])


def _processor_time() -> float:
    """
    Of this process and of its children that have ended, in ms.
    """
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in found) * 1000


def clock(call: Callable[[], None]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def blocks(peers: list[Peer], runs: int, *, idle: float = 0) -> Times:
    """
    *runs* of each peer, a fifth of it at a time and in turn, so that a busy
    minute of the machine hits all of them.
    """
    times = Times()
    for _ in range(5):
        for peer in peers:
            # The first pays for what the peer before has pushed out of the caches.
            peer.run()
            times.add(peer.name, max(2, runs // 5 // peer.dearness), peer.run, before=idle)
    return times


def side_by_side(peers: list[Peer], width: int, runs: int) -> Times:
    """
    Time for each run when *width* are under way at a time: the whole by the number of runs.
    """
    times = Times()
    with ThreadPoolExecutor(width) as pool:
        for _ in range(5):
            for peer in peers:
                count = max(width, runs // 5 // peer.dearness)
                start = time.perf_counter_ns()
                list(pool.map(lambda _, peer=peer: peer.run(), range(count)))
                wall = (time.perf_counter_ns() - start) / 1e6 / count
                times.walls.setdefault(peer.name, []).append(wall)
    return times


def execs(peers: list[Peer], runs: int) -> Times:
    times = Times()
    for _ in range(5):
        for peer in peers:
            try:
                with peer.running():
                    peer.exec()
                    times.add(peer.name, max(2, runs // 5 // peer.dearness), peer.exec)
            except NotImplementedError:
                continue
    return times


@contextmanager
def resident(size: int) -> Iterator[None]:
    """
    This process with *size* bytes more, each page touched.
    """
    block = bytearray(size)
    for at in range(0, size, 4096):
        block[at] = 1
    yield
    del block


def import_time(statement: str, *, warm: str = "") -> float:
    """
    Median time of *statement* in fresh interpreters, after what a bare one does.
    """
    program = (
        f"import time; {warm or 'pass'}; a = time.perf_counter(); {statement}; print(time.perf_counter() - a)"
    )
    return 1000 * statistics.median(
        float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
        for _ in range(11)
    )


def monitor_memory(own: Containerlib) -> float:
    """
    Private dirty memory of the monitor of an idle container, in kB; root alone may look.
    """
    with own.running():
        status = Path(f"/proc/{own.container.pid}/status").read_text(encoding="utf-8")
        monitor = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
        rollup = Path(f"/proc/{monitor}/smaps_rollup").read_text(encoding="utf-8")
    return float(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Private_Dirty:")))


def leavings(directory: Path) -> dict[str, set[str]]:
    """
    What a run could leave behind.

    Others may run containers on this machine: only processes with something
    open below *directory* count, and only control groups without a process.
    """
    return {
        "processes": set(_processes(directory)),
        "mounts": set(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()),
        "control groups": set(_empty_groups()),
        "descriptors": set(os.listdir("/proc/self/fd")),
        "files": {os.path.join(top, n) for top, dirs, files in os.walk(directory) for n in dirs + files},
    }


def _processes(directory: Path) -> Iterator[str]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            links = [os.readlink(link) for link in os.scandir(f"{entry.path}/fd")]
        except OSError:
            continue
        if any(link.startswith(f"{directory}/") for link in links):
            yield entry.name


def _empty_groups() -> Iterator[str]:
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        for name in directories:
            if "containerlib-" in name:
                path = f"{top}/{name}"
                try:
                    with open(f"{path}/cgroup.procs", encoding="ascii") as file:
                        if not file.read():
                            yield path
                except OSError:
                    continue


class Report:
    """
    What was measured: printed as it comes, kept for --json.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[str, float]] = {}
        self.missed: list[str] = []

    def table(self, title: str, times: Times, peers: list[Peer]) -> None:
        """
        Print a scenario, and containerlib's median by that of the best which does as much.
        """
        print(f"\n{title}")
        print(f"  {'':22}{'median':>9}{'min':>9}{'p90':>9}{'cpu':>9}{'by ours':>10}")
        own = times.median(OWN)
        for name, walls in times.walls.items():
            median = statistics.median(walls)
            p90 = statistics.quantiles(walls, n=10)[-1]
            processor = f"{times.processor(name):9.2f}" if times.processor(name) else f"{'':9}"
            print(f"  {name:22}{median:9.2f}{min(walls):9.2f}{p90:9.2f}{processor}{median / own:9.2f}x")
        runtimes = [peer.name for peer in peers if peer.makes_containers and peer.name in times.walls]
        if runtimes:
            best = min(runtimes, key=times.median)
            print(f"  ours by the best other runtime's, {best}: {own / times.median(best):.2f}", flush=True)
        self.values[title] = {name: statistics.median(walls) for name, walls in times.walls.items()}

    def bar(self, what: str, value: float, limit: float, unit: str) -> None:
        """
        Print a figure beside what it has to be.
        """
        held = value <= limit
        print(f"  {'ok    ' if held else 'MISSED'} {what}: {value:.4g} {unit}, bar {limit:g}", flush=True)
        self.values.setdefault("bars", {})[what] = value
        if not held:
            self.missed.append(what)
