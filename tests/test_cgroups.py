# SPDX-License-Identifier: Apache-2.0
"""
Control groups of this host: real groups, real processes.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containerlib.errors import Conflict, ContainerlibError, InvalidOption, KernelError, NotSupported
from containerlib.runtime import cgroups
from containerlib.runtime.cgroups import CgroupPlan, operate
from containerlib.types import BlkioConfig, Resources

MIB = 1 << 20
ID = "0123456789abcdef01234567"


def make(plan: CgroupPlan) -> None:
    """
    Do with *plan* what the monitor does, except for the device program.
    """
    cgroups.prepare(plan)
    for directory in plan.directories:
        Path(directory.path).mkdir()
    for index, file, value, optional in plan.writes:
        try:
            Path(plan.directories[index].path, file).write_text(value)
        except OSError:
            if not optional:
                raise


def spawn(plan: CgroupPlan, *command: str) -> subprocess.Popen[str]:
    """
    A process that enters the groups of *plan* by itself, says so, and runs *command*.
    """
    files = [f"{d.path}/{'tasks' if d.version == 1 else 'cgroup.procs'}" for d in plan.directories]
    script = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 99; shift; done; shift; echo in; exec "$@"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *files, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "in\n" == process.stdout.readline()
    return process


Start = Callable[..., tuple[CgroupPlan, subprocess.Popen[str]]]


@pytest.fixture(name="start")
def _start() -> Iterator[Start]:
    """
    Make groups and run a command in them; both are gone afterwards.
    """
    running: list[tuple[CgroupPlan, subprocess.Popen[str]]] = []

    def start(
        resources: Resources, *command: str, **options: object
    ) -> tuple[CgroupPlan, subprocess.Popen[str]]:
        plan = cgroups.compile(
            resources,
            id=secrets.token_hex(12),
            rootless=os.geteuid() != 0,
            **options,  # type: ignore[arg-type]
        )
        if not plan.directories:
            pytest.skip("no cgroup that this user may write to")
        process = None
        try:
            make(plan)
            process = spawn(plan, *(command or ("sleep", "1000")))
        finally:
            if process is None:
                cgroups.remove(plan.directories)
        running.append((plan, process))
        return plan, process

    yield start
    for plan, process in running:
        cgroups.kill(plan.directories)
        process.kill()
        process.communicate()
        cgroups.remove(plan.directories)


def read(plan: CgroupPlan, controller: str, file: str) -> str:
    """
    A file of the group with *controller*.
    """
    directory = operate.directory_for(plan.directories, controller)
    assert directory is not None
    return Path(directory.path, file).read_text().strip()


def _version(controller: str) -> int:
    hierarchy = cgroups.detect().of(controller)
    if hierarchy is None or not hierarchy.writable:
        pytest.skip(f"no {controller!r} controller that this user may use")
    return hierarchy.version


@pytest.mark.cgroups
class TestKernel:
    """
    Real groups with real processes.
    """

    def test_every_process_is_seen(self, start):
        """
        A container's groups list its processes, those in a group of its own below included.
        """
        plan, process = start(Resources())

        assert [process.pid] == cgroups.pids(plan.directories)
        below = Path(plan.directories[0].path, "below")
        below.mkdir()
        entry = "tasks" if plan.directories[0].version == 1 else "cgroup.procs"
        try:
            (below / entry).write_text(str(process.pid))
        except OSError:
            # Version 2: the container's group has controllers enabled for
            # nobody below, so this fails on no kernel we know.
            pytest.fail("a process could not be moved below")
        assert [process.pid] == cgroups.pids(plan.directories)

    def test_find(self, start):
        """
        The groups of a running container are found by its id, and by its first process.
        """
        plan, process = start(Resources())
        identity = os.path.basename(plan.directories[0].path).removeprefix("containerlib-")

        assert set(plan.directories) == set(cgroups.find(identity))
        assert set(plan.directories) == set(cgroups.of_process(process.pid, identity))
        assert set(plan.directories) == set(cgroups.find(identity, pid=process.pid))
        assert () == cgroups.find("f" * 24)

    def test_limits_are_in_force(self, start):
        """
        The kernel has the limits that were asked for.
        """
        memory, cpu, _ = _version("memory"), _version("cpu"), _version("pids")
        plan, _ = start(Resources(mem_limit=64 * MIB, cpus=0.5, cpu_shares=512, pids_limit=7))

        assert str(64 * MIB) == read(plan, "memory", "memory.max" if memory == 2 else "memory.limit_in_bytes")
        assert "7" == read(plan, "pids", "pids.max")
        if cpu == 2:
            assert "50000 100000" == read(plan, "cpu", "cpu.max")
            assert "59" == read(plan, "cpu", "cpu.weight")
        else:
            assert "50000" == read(plan, "cpu", "cpu.cfs_quota_us")
            assert "512" == read(plan, "cpu", "cpu.shares")

    def test_cpuset(self, start):
        """
        A process can enter a group with its own set of processors, and gets them.
        """
        _version("cpuset")
        plan, process = start(Resources(cpuset="0"))

        assert {0} == os.sched_getaffinity(process.pid)
        assert "0" == read(plan, "cpuset", "cpuset.cpus")

    def test_absent_processors(self):
        """
        Processors that the host does not have are refused before anything is made.
        """
        _version("cpuset")
        with pytest.raises(InvalidOption, match="cpuset.*4095"):
            cgroups.compile(Resources(cpuset="0,4095"), id=ID, rootless=os.geteuid() != 0)

    def test_pids_limit(self, start):
        """
        No more processes can be started than the limit has.
        """
        _version("pids")
        program = (
            "import os\n"
            "for n in range(9):\n"
            "  try: os.fork() or os.read(0, 1)\n"
            "  except OSError: print('no', n)\n"
        )
        plan, process = start(Resources(pids_limit=3), sys.executable, "-c", program)

        assert process.stdout is not None
        assert process.stdout.readline().startswith("no ")
        assert len(cgroups.pids(plan.directories)) <= 3

    def test_out_of_memory(self, start):
        """
        A process that takes more memory than the limit is killed, and counted.
        """
        _version("memory")
        resources = Resources(mem_limit=32 * MIB, memswap_limit=32 * MIB)
        try:
            plan, process = start(resources, sys.executable, "-c", "x = b'x' * (256 << 20)")
        except NotSupported as error:
            pytest.skip(str(error))

        assert -9 == process.wait(60)
        assert 1 == cgroups.oom_count(plan.directories)

    def test_no_out_of_memory(self, start):
        """
        A process that keeps within its memory is not counted.
        """
        plan, _ = start(Resources())

        assert 0 == cgroups.oom_count(plan.directories)

    def test_pause(self, start):
        """
        A frozen container does nothing until it is thawed.
        """
        plan, process = start(Resources(), "cat")

        assert not cgroups.is_frozen(plan.directories)
        cgroups.freeze(plan.directories)
        assert cgroups.is_frozen(plan.directories)
        process.stdin.write("hello\n")
        process.stdin.flush()
        ticks = Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
        assert ticks == Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
        cgroups.thaw(plan.directories)
        assert "hello\n" == process.stdout.readline()
        assert not cgroups.is_frozen(plan.directories)

    def test_freezing_twice(self, start):
        """
        Freezing what is frozen and thawing what runs change nothing.
        """
        plan, _ = start(Resources())

        cgroups.thaw(plan.directories)
        cgroups.freeze(plan.directories)
        cgroups.freeze(plan.directories)
        assert cgroups.is_frozen(plan.directories)

    @pytest.mark.parametrize("frozen", [False, True])
    def test_kill(self, start, frozen):
        """
        Every process ends, paused or not, and nothing stays frozen.
        """
        plan, process = start(Resources(), "sh", "-c", "sleep 1000 & sleep 1000 & echo; wait")
        process.stdout.readline()
        assert 3 == len(cgroups.pids(plan.directories))
        if frozen:
            cgroups.freeze(plan.directories)

        cgroups.kill(plan.directories)

        assert -9 == process.wait(60)
        cgroups.remove(plan.directories)
        assert not any(os.path.exists(directory.path) for directory in plan.directories)

    def test_kill_outruns_forks(self, start):
        """
        A program that starts others as fast as it can is ended all the same.
        """
        _version("pids")
        plan, process = start(Resources(pids_limit=50), "sh", "-c", "f() { f & f; }; exec 2>&-; f")

        cgroups.kill(plan.directories)

        process.wait(60)
        cgroups.remove(plan.directories)

    def test_remove_waits(self, start):
        """
        Groups of processes that are about to end are removed as soon as these have.
        """
        plan, process = start(Resources(), "sleep", "0.2")

        cgroups.remove(plan.directories)

        assert 0 == process.wait(60)
        assert () == cgroups.find(os.path.basename(plan.directories[0].path).removeprefix("containerlib-"))

    def test_remove_gives_up(self, start):
        """
        A group with a process that stays is an error that names both.
        """
        plan, process = start(Resources())

        with pytest.raises(KernelError, match=f"containerlib-.*{process.pid}"):
            cgroups.remove(plan.directories, timeout=0.05)

    def test_remove_twice(self, start):
        """
        Removing what is gone is no error.
        """
        plan, process = start(Resources())
        process.kill()
        process.wait()

        cgroups.remove(plan.directories)
        cgroups.remove(plan.directories)

    def test_sweep(self, start):
        """
        Groups whose container is no more are removed, those of others and of living processes stay.
        """
        dead, process = start(Resources())
        alive, _ = start(Resources())
        process.kill()
        process.wait()
        ours = {directory.path.rpartition("-")[2] for directory in (*dead.directories, *alive.directories)}

        removed = cgroups.sweep(lambda identity: identity not in ours)

        assert {directory.path for directory in dead.directories} == set(removed)
        assert all(os.path.isdir(directory.path) for directory in alive.directories)

    def test_update(self, start):
        """
        Limits of a running container are raised, lowered and taken away.
        """
        memory, cpu = _version("memory"), _version("cpu")
        small = Resources(mem_limit=64 * MIB, memswap_limit=64 * MIB, cpus=0.5, pids_limit=7)
        big = Resources(mem_limit=256 * MIB, memswap_limit=512 * MIB, cpus=1.5, pids_limit=70)
        limit = "memory.max" if memory == 2 else "memory.limit_in_bytes"
        quota = "cpu.max" if cpu == 2 else "cpu.cfs_quota_us"
        try:
            plan, _ = start(small)
        except NotSupported as error:
            pytest.skip(str(error))

        for old, new in ((small, big), (big, small), (small, big)):
            assert plan.directories == cgroups.update(plan.directories, old, new)
            assert str(new.mem_limit) == read(plan, "memory", limit)
            assert str(new.pids_limit) == read(plan, "pids", "pids.max")
            assert str(int(new.cpus * 100_000)) == read(plan, "cpu", quota).split()[0]
        cgroups.update(plan.directories, big, Resources())
        assert "max" == read(plan, "pids", "pids.max")
        assert read(plan, "cpu", quota).split()[0] in ("max", "-1")

    def test_update_below_what_is_used(self, start):
        """
        On version 1 a limit below what is in use and cannot go is refused, and the old one stays.
        """
        if _version("memory") == 2:
            pytest.skip("version 2 ends a process instead")
        program = "x = bytearray(b'x') * (48 << 20); print('has', flush=True); input()"
        old = Resources(mem_limit=256 * MIB, memswap_limit=256 * MIB)
        plan, process = start(old, sys.executable, "-c", program)
        assert "has\n" == process.stdout.readline()

        with pytest.raises(Conflict, match="mem_limit"):
            cgroups.update(plan.directories, old, Resources(mem_limit=8 * MIB, memswap_limit=256 * MIB))
        assert str(256 * MIB) == read(plan, "memory", "memory.limit_in_bytes")

    def test_late_cpuset(self, start):
        """
        Processors can be restricted on a container that was started with all of them.
        """
        _version("cpuset")
        plan, process = start(Resources())

        directories = cgroups.update(plan.directories, Resources(), Resources(cpuset="0"))

        try:
            assert {0} == os.sched_getaffinity(process.pid)
        finally:
            cgroups.kill(directories)
            process.wait()
            cgroups.remove(directories)

    def test_named_parent(self, start):
        """
        A named parent is made on the way and stays.
        """
        name = f"containerlib-parent{secrets.token_hex(4)}"
        plan, process = start(
            Resources(pids_limit=9, cpuset="0") if _has_cpuset() else Resources(), parent=name
        )
        parents = [os.path.dirname(directory.path) for directory in plan.directories]
        try:
            assert [process.pid] == cgroups.pids(plan.directories)
            process.kill()
            process.wait()
            cgroups.remove(plan.directories)
            assert all(path.endswith(name) and os.path.isdir(path) for path in parents)
        finally:
            for path in parents:
                os.rmdir(path)

    def test_throttle(self, start):
        """
        A rate for a disk reaches the kernel, and is taken away again.
        """
        if os.geteuid() != 0:
            pytest.skip("needs root")
        version = _version("blkio")
        disk = next(
            (path for path in ("/dev/vda", "/dev/sda", "/dev/loop0", "/dev/ubda") if os.path.exists(path)),
            None,
        )
        if disk is None:
            pytest.skip("no disk to limit")
        rate = Resources(blkio=BlkioConfig(device_read_bps=((disk, MIB),)))
        try:
            plan, _ = start(rate)
        except (ContainerlibError, OSError) as error:
            pytest.skip(f"{disk} cannot be limited: {error}")
        file = "io.max" if version == 2 else "blkio.throttle.read_bps_device"

        assert str(MIB) in read(plan, "blkio", file)
        cgroups.update(plan.directories, rate, Resources())
        assert str(MIB) not in read(plan, "blkio", file)


def _has_cpuset() -> bool:
    hierarchy = cgroups.detect().of("cpuset")
    return hierarchy is not None and hierarchy.writable


@pytest.mark.root
@pytest.mark.cgroups
class TestDelegation:
    """
    Version 2 as a user: a group of one's own.
    """

    PROGRAM = """
        import os, sys
        from containerlib.runtime import cgroups
        from containerlib.errors import NotSupported
        from containerlib.types import Resources
        group, neighbour = sys.argv[1], sys.argv[2] == "neighbour"
        open(group + "/cgroup.procs", "w").write("0")
        if neighbour:
            print("ready", flush=True)
            sys.stdin.readline()
        os.setgid(65534)
        os.setuid(65534)
        layout = cgroups.detect(refresh=True)
        assert layout.unified.own == layout.unified.parent == group, layout
        try:
            plan = cgroups.compile(Resources(pids_limit=7), id="0" * 24, layout=layout, rootless=True)
        except NotSupported as error:
            print("NotSupported:", error)
            sys.exit()
        cgroups.prepare(plan)
        os.mkdir(plan.directories[0].path)
        for index, file, value, optional in plan.writes:
            open(plan.directories[index].path + "/" + file, "w").write(value)
        limit = open(plan.directories[0].path + "/pids.max").read().strip()
        print(limit, cgroups.detect().unified.parent == group)
        os.rmdir(plan.directories[0].path)
    """

    @pytest.fixture(name="group")
    def _group(self) -> Iterator[Path]:
        unified = cgroups.detect().unified
        if unified is None or "pids" not in unified.controllers:
            pytest.skip("the pids controller is not in cgroup v2 here")
        group = Path(unified.parent, f"containerlib-delegated{secrets.token_hex(4)}")
        Path(unified.parent, "cgroup.subtree_control").write_text("+pids")
        group.mkdir()
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(group / name, 65534, 65534)
        yield group
        for path in operate._tree(str(group)):
            os.rmdir(path)

    def test_alone(self, group):
        """
        A program alone in its delegated group steps into a group below, and can limit containers.
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(self.PROGRAM), str(group), "alone"],
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert ("7 True\n", "") == (done.stdout, done.stderr)

    def test_with_neighbours(self, group):
        """
        Processes of others are not moved: the limit is refused, with the reason and a way.
        """
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.PROGRAM), str(group), "neighbour"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "ready\n" == program.stdout.readline()
        other = subprocess.Popen(["sleep", "1000"])
        try:
            (group / "cgroup.procs").write_text(str(other.pid))
            output, _ = program.communicate("go\n", timeout=60)
        finally:
            other.kill()
            other.wait()
            program.kill()
            program.wait()

        assert output.startswith("NotSupported: pids_limit")
        assert str(other.pid) in output
        assert "systemd-run" in output
