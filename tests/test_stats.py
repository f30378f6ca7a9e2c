# SPDX-License-Identifier: Apache-2.0
"""
What a container uses: the kernel's files, read and added up.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.runtime import cgroups
from containerlib.runtime.cgroups import CgroupDirectory, stats
from containerlib.shim import CgroupKind
from containerlib.types import Resources

MIB = 1 << 20


class TestParsers:
    """
    The kernel's formats.
    """

    def test_flat(self):
        """
        Lines of key and value are read, others skipped.
        """
        assert {"a": 1, "b": 20} == stats.parse_flat("a 1\nb 20\nc d\n\ne 1 2\n")

    def test_io_stat(self):
        """
        Devices of version 2 are added up.
        """
        text = "254:0 rbytes=100 wbytes=20 rios=3 wios=4\n7:0 rbytes=11 wbytes=0 rios=1 wios=0\n7:1 \n"

        assert {"rbytes": 111, "wbytes": 20, "rios": 4, "wios": 4} == stats.parse_io_stat(text)

    def test_blkio(self):
        """
        Devices of version 1 are added up without the totals.
        """
        text = "254:0 Read 100\n254:0 Write 20\n254:0 Total 120\n7:0 Read 5\nTotal 125\n"

        assert (105, 20) == stats.parse_blkio(text)

    def test_net_dev(self):
        """
        Interfaces are read with any spacing, the loopback left out.
        """
        text = (
            "Inter-|   Receive                |  Transmit\n"
            " face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n"
            "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n"
            "  eth0:1234567 5 0 0 0 0 0 0 42 3 0 0 0 0 0 0\n"
            "veth1: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n"
        )

        assert {"eth0": (1234567, 42), "veth1": (1, 2)} == stats.parse_net_dev(text)

    @given(st.text())
    def test_any_text(self, text):
        """
        No text makes a parser fail.
        """
        stats.parse_flat(text)
        stats.parse_io_stat(text)
        stats.parse_blkio(text)
        stats.parse_net_dev(text)


class TestFiles:
    """
    Groups as files: both versions give the same fields.
    """

    def test_v1(self, tmp_path):
        """
        Version 1 counts nanoseconds; what is unlimited is None.
        """
        directory = self.group(
            tmp_path,
            {
                "cpuacct.usage": "3000000000\n",
                "cpuacct.usage_user": "1000000000\n",
                "cpuacct.usage_sys": "2000000000\n",
                "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 500000000\n",
                "memory.usage_in_bytes": "1000\n",
                "memory.limit_in_bytes": "9223372036854771712\n",
                "memory.max_usage_in_bytes": "2000\n",
                "memory.stat": "inactive_file 1\ntotal_inactive_file 300\ntotal_swap 7\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                "pids.current": "4\n",
                "pids.max": "max\n",
                "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
                "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
            },
            version=1,
        )

        found = stats.read_stats([directory])

        assert (3.0, 1.0, 2.0) == (found.cpu_total, found.cpu_user, found.cpu_system)
        assert (5, 2, 0.5) == (found.cpu_periods, found.cpu_throttled_periods, found.cpu_throttled)
        assert (1000, None, 2000, 300, 700) == (
            found.memory,
            found.memory_limit,
            found.memory_peak,
            found.memory_cache,
            found.memory_used,
        )
        assert (7, 2, 4, None) == (found.swap, found.oom_kills, found.pids, found.pids_limit)
        assert (10, 20, 1, 2) == (found.block_read, found.block_write, found.block_reads, found.block_writes)

    def test_v2(self, tmp_path):
        """
        Version 2 counts microseconds in one group.
        """
        directory = self.group(
            tmp_path,
            {
                "cpu.stat": "usage_usec 3000000\nuser_usec 1000000\nsystem_usec 2000000\n"
                "nr_periods 5\nnr_throttled 2\nthrottled_usec 500000\n",
                "memory.current": "1000\n",
                "memory.max": "5000\n",
                "memory.peak": "2000\n",
                "memory.stat": "anon 5\ninactive_file 300\n",
                "memory.swap.current": "7\n",
                "memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
                "pids.current": "4\n",
                "pids.max": "9\n",
                "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
            },
            version=2,
        )

        found = stats.read_stats([directory])

        assert (3.0, 1.0, 2.0) == (found.cpu_total, found.cpu_user, found.cpu_system)
        assert (5, 2, 0.5) == (found.cpu_periods, found.cpu_throttled_periods, found.cpu_throttled)
        assert (1000, 5000, 2000, 700, 14.0) == (
            found.memory,
            found.memory_limit,
            found.memory_peak,
            found.memory_used,
            found.memory_percent,
        )
        assert (7, 2, 4, 9) == (found.swap, found.oom_kills, found.pids, found.pids_limit)
        assert (10, 20, 1, 2) == (found.block_read, found.block_write, found.block_reads, found.block_writes)

    def test_nothing(self):
        """
        Without groups nothing is counted, and nothing fails.
        """
        found = stats.read_stats([], os.getpid())

        assert (None, None, None, None) == (
            found.memory,
            found.pids,
            found.block_read,
            found.network_received,
        )

    @staticmethod
    def group(path: Path, files: dict[str, str], *, version: int) -> CgroupDirectory:
        for name, text in files.items():
            (path / name).write_text(text)
        kind = CgroupKind.UNIFIED if version == 2 else CgroupKind.OTHER
        controllers = () if version == 2 else ("cpu", "cpuacct", "memory", "pids", "blkio")
        return CgroupDirectory(version, kind, str(path), controllers)


@pytest.mark.cgroups
class TestKernel:
    """
    A real group.
    """

    @pytest.fixture(name="directories")
    def _directories(self) -> Iterator[tuple[CgroupDirectory, ...]]:
        resources = Resources(mem_limit=128 * MIB, pids_limit=9)
        plan = cgroups.compile(resources, id=secrets.token_hex(12), rootless=os.geteuid() != 0)
        cgroups.prepare(plan)
        try:
            for directory in plan.directories:
                Path(directory.path).mkdir()
            for index, file, value, optional in plan.writes:
                if not optional:
                    Path(plan.directories[index].path, file).write_text(value)
            yield plan.directories
        finally:
            cgroups.kill(plan.directories)
            cgroups.remove(plan.directories)

    def test_work_is_counted(self, directories):
        """
        Processor time and memory of a process show up, within its limits.
        """
        first = stats.read_stats(directories)
        files = [f"{d.path}/{'tasks' if d.version == 1 else 'cgroup.procs'}" for d in directories]
        program = (
            "import sys\n"
            f"for file in {files!r}: open(file, 'w').write('0')\n"
            "x = bytearray(b'x') * (20 << 20)\n"
            "sum(range(3_000_000))\n"
            "print('done', flush=True); sys.stdin.readline()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert "done\n" == process.stdout.readline()

        second = stats.read_stats(directories, process.pid)

        process.communicate("\n", timeout=60)
        assert second.cpu_total > first.cpu_total
        assert second.since(first).cpu_percent > 0
        assert 1 == second.pids
        assert 9 == second.pids_limit
        assert 128 * MIB == second.memory_limit
        assert 20 * MIB <= second.memory <= 128 * MIB
        assert 0 == second.oom_kills
        assert second.network_received is None

    @pytest.mark.root
    def test_network_of_its_own(self):
        """
        The counters of a network namespace are read through any process in it.
        """
        process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo in; exec cat"], stdin=-1, stdout=-1, text=True
        )
        assert "in\n" == process.stdout.readline()

        found = stats.read_stats([], process.pid)

        process.communicate(timeout=60)
        assert (0, 0) == (found.network_received, found.network_sent)
