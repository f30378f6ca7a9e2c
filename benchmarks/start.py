# SPDX-License-Identifier: Apache-2.0
"""
How long a container takes to start, beside the other runtimes that are
installed, in one run.

    python benchmarks/start.py [--quick] [--only NAME]... [--json FILE] [--compare FILE]

Each scenario goes round the runtimes in turn, in blocks, so that a busy
minute of the machine hits all of them.  Times are milliseconds.  A bar that is missed
is marked; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from peers import Containerlib, Peer, find, rootfs

RESIDENT = 3 << 30


class Report:
    """
    What was measured: printed as it comes, kept for --json.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[str, float]] = {}
        self.missed: list[str] = []

    def table(self, title: str, times: dict[str, list[float]]) -> None:
        print(f"\n{title}")
        print(f"  {'':14}{'median':>9}{'p10':>9}{'p90':>9}{'ratio':>9}")
        own = statistics.median(times["containerlib"])
        for name, values in times.items():
            median = statistics.median(values)
            deciles = statistics.quantiles(values, n=10)
            print(f"  {name:14}{median:9.2f}{deciles[0]:9.2f}{deciles[-1]:9.2f}{median / own:8.1f}x")
        self.values[title] = {name: statistics.median(values) for name, values in times.items()}

    def bar(self, what: str, value: float, limit: float, unit: str) -> None:
        held = value <= limit
        print(f"  {'ok    ' if held else 'MISSED'} {what}: {value:.4g} {unit}, bar {limit:g}")
        if not held:
            self.missed.append(what)


def clock(call: Callable[[], None]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def blocks(peers: list[Peer], rounds: int, size: int, *, idle: float = 0) -> dict[str, list[float]]:
    """
    Times of *rounds* × *size* runs of each peer, a block of one after a block of another.
    """
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            # The first of a block pays for what the other peer has pushed out of the caches.
            peer.run()
            for _ in range(size):
                time.sleep(idle)
                times[peer.name].append(clock(peer.run))
    return times


def side_by_side(peers: list[Peer], width: int, count: int) -> dict[str, list[float]]:
    """
    Time for each run when *width* are under way at a time: the whole by the number of runs.
    """
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with ThreadPoolExecutor(width) as pool:
        for _ in range(5):
            for peer in peers:

                def burst(peer: Peer = peer) -> None:
                    list(pool.map(lambda _: peer.run(), range(count)))

                times[peer.name].append(clock(burst) / count)
    return times


def execs(peers: list[Peer], rounds: int, size: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for peer in peers:
            try:
                with peer.running():
                    peer.exec()
                    times.setdefault(peer.name, []).extend(clock(peer.exec) for _ in range(size))
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


def import_time(statement: str) -> list[float]:
    program = f"import time; a = time.perf_counter(); {statement}; print(time.perf_counter() - a)"
    return [
        float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout) * 1000
        for _ in range(11)
    ]


def monitor_memory(own: Containerlib) -> float:
    """
    Private memory of the monitor of an idle container, in kB.
    """
    with own.running():
        pid = own.container.pid
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        monitor = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
        rollup = Path(f"/proc/{monitor}/smaps_rollup").read_text(encoding="utf-8")
    return float(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Private_Dirty:")))


def leavings(own: Containerlib) -> dict[str, int]:
    """
    How much there is of what a run could leave behind.
    """
    processes = 0
    for entry in Path("/proc").iterdir():
        try:
            processes += entry.name.isdigit() and (entry / "comm").read_text().startswith("containerlib")
        except OSError:
            continue
    return {
        "processes": processes,
        "mounts": len(Path("/proc/self/mountinfo").read_bytes().splitlines()),
        "cgroups": sum("containerlib" in d for _, dirs, _ in os.walk("/sys/fs/cgroup") for d in dirs),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": sum(len(dirs) + len(files) for _, dirs, files in os.walk(own.directory)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--only", action="append", help="this peer (beside containerlib); may be given again")
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    parser.add_argument("--compare", type=Path, help="as a user: root's medians, written by --json")
    options = parser.parse_args()

    _hide_second_hierarchy()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=_tmpfs()) as name:
        directory = Path(name)
        peers, missing = find(rootfs(directory), directory, set(options.only) if options.only else None)
        try:
            who = "root" if os.geteuid() == 0 else "a user"
            print(f"Linux {os.uname().release}, {os.cpu_count()} processors, as {who},")
            print(f"files on {directory.parent}, network none")
            for peer in peers:
                print(f"  {peer.name}{': ' if peer.note else ''}{peer.note}")
            for peer_name, reason in missing.items():
                print(f"  without {peer_name}: {reason}")
            measure(report, peers, scale=0.1 if options.quick else 1.0)
        finally:
            for peer in peers:
                peer.close()
    if options.compare:
        root = json.loads(options.compare.read_bytes())["run to exit, in a loop"]["containerlib"]
        own = report.values["run to exit, in a loop"]["containerlib"]
        report.bar("as a user, by root's", own / root, 2, "x")
    if options.json:
        options.json.write_text(json.dumps(report.values, indent=1), encoding="utf-8")
    return 1 if report.missed else 0


def measure(report: Report, peers: list[Peer], *, scale: float) -> None:
    [own] = [peer for peer in peers if isinstance(peer, Containerlib)]
    slow = {"podman", "docker-py"}
    fast = [peer for peer in peers if peer.name not in slow]

    def number(count: int) -> int:
        return max(3, int(count * scale))

    loop = "run to exit, in a loop"
    report.table(loop, blocks(peers, 5, number(20)))
    median = report.values[loop]["containerlib"]
    report.bar("run to exit", median, 5, "ms")
    for peer in peers:
        if peer.is_oci_runtime:
            report.bar(f"by {peer.name}'s", median / report.values[loop][peer.name], 1, "x")

    idle = "run to exit, 60 ms idle before each"
    report.table(idle, blocks(fast, 5, number(20), idle=0.06))
    report.bar("idle by loop", report.values[idle]["containerlib"] / median, 2, "x")

    big = "run to exit, 3 GB resident in the caller"
    before = statistics.median(blocks([own], 5, number(20))["containerlib"])
    with resident(RESIDENT):
        report.table(big, blocks(fast, 5, number(20)))
    report.bar("resident by not", report.values[big]["containerlib"] / before, 1.1, "x")

    for width in (8, 32):
        report.table(f"run to exit, {width} at a time, each", side_by_side(fast, width, number(64)))

    report.table("exec", execs(peers, 5, number(20)))
    report.bar("exec", report.values["exec"]["containerlib"], 3, "ms")

    print()
    report.bar("import containerlib", statistics.median(import_time("import containerlib")), 50, "ms")
    first_use = statistics.median(import_time("import containerlib; containerlib.run"))
    print(f"         first use of run: {first_use:.4g} ms")
    report.bar("private memory of the monitor", monitor_memory(own), 150, "kB")

    count = number(1000)
    first = leavings(own)
    for _ in range(count):
        own.run()
    last = leavings(own)
    for kind, value in first.items():
        report.bar(f"{kind} left by {count} runs", last[kind] - value, 0, kind)


def _hide_second_hierarchy() -> None:
    """
    Start anew without the mount of cgroup v2 where v1 is mounted too: crun
    refuses such hosts.  It is the same host for all.
    """
    unified = "/sys/fs/cgroup/unified"
    if os.geteuid() != 0 or not os.path.ismount(unified):
        return
    script = 'umount "$0" && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, unified, sys.executable, *sys.argv])


def _tmpfs() -> str | None:
    """
    A directory in memory, so that the disk is not what is measured.
    """
    for path in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):
        if path and os.access(path, os.W_OK):
            return path
    return None


if __name__ == "__main__":
    sys.exit(main())
