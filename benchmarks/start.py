# SPDX-License-Identifier: Apache-2.0
"""
How long a container takes to start, beside the other runtimes that are
installed, in one run.

    python benchmarks/start.py [--quick | --runs N] [--peers NAME,…] [--root DIR]…
        [--user NAME] [--user-python PATH] [--json FILE]

Each scenario goes round the runtimes in turn.  Times are milliseconds: wall
clock; cpu is user and system time of the caller and of what it started, which
a busy machine changes less (what a daemon does is not in it).  A bar that is
missed is marked; the exit code says only whether all could be measured.

As root, containerlib is measured as a user too: the one that --user names,
else the first in /etc/subuid, if there is an interpreter that this user can
run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from measure import (
    OWN,
    Report,
    blocks,
    execs,
    import_time,
    leavings,
    monitor_memory,
    resident,
    side_by_side,
)
from peers import AsUser, Containerlib, Peer, find, rootfs, serve

RESIDENT = 3 << 30
LOOP = "run to exit, in a loop"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="of each runtime in each scenario (100)")
    parser.add_argument("--quick", action="store_true", help="the same as --runs 10")
    parser.add_argument("--peers", help="these alone beside containerlib, with commas between")
    parser.add_argument("--root", action="append", type=Path, help="where files are; may be given again")
    parser.add_argument("--user", help="the user to measure as, too")
    parser.add_argument("--user-python", default=sys.executable, help="an interpreter that the user can run")
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*map(Path, options.serve))
        return 0

    _hide_second_hierarchy()
    report = Report()
    runs = 10 if options.quick else options.runs
    who = "root" if os.geteuid() == 0 else "a user"
    print(
        f"Linux {os.uname().release}, {os.cpu_count()} processors, as {who}, a new network namespace for each"
    )
    for number, root in enumerate(options.root or _roots()):
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir=root) as name,
            ExitStack() as stack,
        ):
            directory = Path(name)
            directory.chmod(0o755)
            wanted = set(options.peers.split(",")) if options.peers is not None else None
            peers, missing = find(rootfs(directory), directory, wanted)
            for peer in peers:
                stack.callback(peer.close)
            try:
                user = AsUser(directory, options.user, options.user_python)
            except Exception as error:  # it is not there, or cannot
                missing[AsUser.name] = str(error)
            else:
                stack.callback(user.close)
                peers.insert(2, user)
            print(f"\n==== files on {root}, {_filesystem(directory)} ====")
            for peer in peers:
                print(f"  {peer.name}{': ' if peer.note else ''}{peer.note}")
            for peer_name, reason in missing.items():
                print(f"  without {peer_name}: {reason}")
            if number == 0:
                measure(report, peers, runs)
                count_leavings(report, peers, directory, runs * 10)
            else:
                report.table(f"{LOOP}, {root}", blocks(peers, runs), peers)
    print(f"\nmissed: {', '.join(report.missed) or 'nothing'}")
    if options.json:
        options.json.write_text(json.dumps(report.values, indent=1), encoding="utf-8")
    return 0


def measure(report: Report, peers: list[Peer], runs: int) -> None:
    own = peers[0]
    assert isinstance(own, Containerlib)
    # One at a time is asked of the user's interpreter.
    here = [peer for peer in peers if not isinstance(peer, AsUser)]
    loop = blocks(peers, runs)
    report.table(LOOP, loop, peers)
    median = loop.median(OWN)
    report.bar("run to exit", median, 5, "ms")
    for peer in peers:
        if peer.is_oci_runtime:
            report.bar(f"by {peer.name}'s", median / loop.median(peer.name), 1, "x")
        elif isinstance(peer, AsUser):
            report.bar("as a user, by root's", loop.median(peer.name) / median, 2, "x")

    idle = blocks(peers, runs, idle=0.06)
    report.table("run to exit, 60 ms idle before each", idle, peers)
    report.bar("idle, by loop", idle.median(OWN) / median, 2, "x")

    # Half before and half after, for the machine does not stay as it is.
    small = blocks([own], runs)
    with resident(RESIDENT):
        big = blocks(here, runs)
    small.walls[OWN] += blocks([own], runs).walls[OWN]
    report.table("run to exit, 3 GB resident in the caller", big, peers)
    report.bar("3 GB resident, by not", big.median(OWN) / small.median(OWN), 1.1, "x")

    for width in (8, 32):
        times = side_by_side(here, width, runs)
        report.table(f"run to exit, {width} at a time, for each", times, peers)

    times = execs(here, runs)
    report.table("exec in a running container", times, peers)
    report.bar("exec", times.median(OWN), 3, "ms")

    print("\nin a fresh interpreter, over a bare one")
    report.bar("import containerlib", import_time("import containerlib"), 50, "ms")
    first = "containerlib.run('host', ['true'], network='none', engine=e)"
    setting = f"import containerlib; e = containerlib.Engine({str(own.directory / 'first')!r})"
    print(f"  its first run, in all: {import_time(first, warm=setting):.3g} ms")
    if os.geteuid() == 0:
        report.bar("private dirty memory of the monitor", monitor_memory(own), 150, "kB")


def count_leavings(report: Report, peers: list[Peer], directory: Path, count: int) -> None:
    """
    Run so many times; what is there afterwards that was not before.
    """
    own = peers[0]
    print(f"\nleft behind by {count} runs")
    before = leavings(directory)
    for _ in range(count):
        own.run()
    # Others' containers come and go; what stays is left.
    left = {kind: found - before[kind] for kind, found in leavings(directory).items()}
    if any(left.values()):
        time.sleep(2)
        left = {kind: found & left[kind] for kind, found in leavings(directory).items()}
    for kind, found in left.items():
        report.bar(kind, len(found), 0, ", ".join(sorted(found)[:3]))


def _hide_second_hierarchy() -> None:
    """
    Start anew without the mount of cgroup v2 where v1 is mounted too: crun
    refuses such hosts.  It is the same host for all.
    """
    unified = "/sys/fs/cgroup/unified"
    if os.geteuid() != 0 or not os.path.ismount(unified):
        return
    print(f"{unified} is hidden from all of them, since crun refuses a host with both versions", flush=True)
    script = 'umount "$0" && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, unified, sys.executable, *sys.argv])


def _roots() -> list[str]:
    """
    A directory in memory, and one on the disk.
    """
    roots = []
    for path in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):
        if path and os.access(path, os.W_OK):
            roots.append(path)
            break
    return [*roots, "/var/tmp"]


def _filesystem(directory: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
