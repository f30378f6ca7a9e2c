# SPDX-License-Identifier: Apache-2.0
"""
Limits of containers that run, as they are seen from inside and enforced.

The same file runs under cgroup v1 and v2 (nox session cgroup2).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import containerlib as cl
from containerlib import Container, InvalidOption, NotSupported
from containerlib.containers import observing
from containerlib.runtime import cgroups
from containerlib.runtime.cgroups.operate import directory_for

pytestmark = pytest.mark.cgroups

MIB = 1 << 20


def needs(controller: str) -> None:
    """
    Skip where *controller* cannot limit anything.
    """
    hierarchy = cgroups.detect().of(controller)
    if hierarchy is None or not hierarchy.writable:
        pytest.skip(f"no cgroup controller {controller} that this user may write to")


def value(container: Container, controller: str, v1: str, v2: str) -> str:
    """
    What the container's control group says, outside.
    """
    directories = observing.directories(container.engine, container.id)
    directory = directory_for(directories, controller)
    return Path(directory.path, v1 if directory.version == 1 else v2).read_text(encoding="ascii").strip()


def inside(container: Container, controller: str, v1: str, v2: str) -> str:
    """
    What the same says inside, where the container's group is the root.
    """
    directories = observing.directories(container.engine, container.id)
    directory = directory_for(directories, controller)
    path = f"/sys/fs/cgroup/{v2}"
    if directory.version == 1:
        path = f"/sys/fs/cgroup/{','.join(directory.controllers)}/{v1}"
    return container.exec(["cat", path]).stdout.strip()


# ---- memory -----------------------------------------------------------------


def test_memory(start):
    """The memory limit is set, and the container sees it."""
    needs("memory")
    container = start(mem_limit="48m")
    files = ("memory", "memory.limit_in_bytes", "memory.max")
    assert str(48 * MIB) == value(container, *files) == inside(container, *files)
    assert 48 * MIB == container.stats().memory_limit
    assert 48 * MIB == container.inspect()["HostConfig"]["Memory"]


def test_out_of_memory(create):
    """A container that takes more than its memory is killed, with code 137, and oom_killed says why."""
    needs("memory")
    container = create(["sh", "-c", "exec tail /dev/zero"], mem_limit="16m", memswap_limit="16m", init=False)
    container.start()
    assert 137 == container.wait(timeout=60)
    assert container.state.oom_killed
    assert container.inspect()["State"]["OOMKilled"]
    container.start()
    container.wait(timeout=60)


def test_out_of_memory_in_run(run):
    """The error of run says that memory ran out."""
    needs("memory")
    with pytest.raises(cl.CommandFailed, match="out of memory") as caught:
        run(["tail", "/dev/zero"], mem_limit="16m", memswap_limit="16m")
    assert 137 == caught.value.exit_code


def test_a_death_that_was_no_lack_of_memory(create):
    """A kill by hand is not taken for a lack of memory."""
    needs("memory")
    container = create(mem_limit="16m")
    container.start()
    container.kill()
    container.wait(timeout=20)
    assert not container.state.oom_killed


def test_memory_of_a_running_container(start):
    """An update of the memory limit counts at once, and stays."""
    needs("memory")
    container = start(mem_limit="48m")
    container.update(mem_limit="64m")
    files = ("memory", "memory.limit_in_bytes", "memory.max")
    assert str(64 * MIB) == value(container, *files)
    assert 64 * MIB == container.config.resources.mem_limit
    container.restart(timeout=5)
    assert str(64 * MIB) == value(container, *files)


# ---- processes --------------------------------------------------------------


def test_pids(start):
    """No more processes than the limit can be made."""
    needs("pids")
    container = start(pids_limit=12)
    files = ("pids", "pids.max", "pids.max")
    assert "12" == value(container, *files) == inside(container, *files)
    script = "for i in $(seq 40); do sleep 1000 & done; echo made"
    done = container.exec(["sh", "-c", script], check=False)
    assert "can't fork" in done.stderr
    assert container.stats().pids <= 12


def test_pids_of_a_running_container(start):
    """An update counts at once; 0 or -1 lifts the limit."""
    needs("pids")
    container = start(pids_limit=12)
    container.update(pids_limit=20)
    assert "20" == value(container, "pids", "pids.max", "pids.max")
    container.update(pids_limit=-1)
    assert "max" == value(container, "pids", "pids.max", "pids.max")


# ---- processors -------------------------------------------------------------


def quota(container: Container) -> float:
    directory = directory_for(observing.directories(container.engine, container.id), "cpu")
    path = Path(directory.path)
    if directory.version == 2:
        amount, period = (path / "cpu.max").read_text(encoding="ascii").split()
    else:
        amount, period = (
            (path / name).read_text(encoding="ascii") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    return int(amount) / int(period)


def test_cpus(start):
    """A container gets no more processor time than its limit."""
    needs("cpu")
    container = start(["sh", "-c", "while :; do :; done"], cpus=0.2)
    assert 0.2 == quota(container)
    first = container.stats()
    time.sleep(0.5)  # what is measured is this time
    used = container.stats().since(first)
    assert used.cpu_percent < 60
    assert container.stats().cpu_throttled_periods > 0


def test_cpus_of_a_running_container(start):
    """An update of the processors counts at once."""
    needs("cpu")
    container = start(cpus=0.5)
    container.update(cpus=1.5)
    assert 1.5 == quota(container)


def test_shares(start):
    """Shares are set as they are under version 1, and as the weight that they mean under version 2."""
    needs("cpu")
    container = start(cpu_shares=512)
    found = int(value(container, "cpu", "cpu.shares", "cpu.weight"))
    directory = directory_for(observing.directories(container.engine, container.id), "cpu")
    assert found == 512 if directory.version == 1 else 1 < found < 100
    container.update(cpu_shares=2048)
    assert int(value(container, "cpu", "cpu.shares", "cpu.weight")) > found


def test_cpuset(start):
    """A container runs on the processors that it was given, and on others after an update."""
    needs("cpuset")
    container = start(cpuset="0")
    assert "0" == _allowed(container)
    if os.cpu_count() == 1:
        pytest.skip("one processor only")
    container.update(cpuset="1")
    assert "1" == _allowed(container)


def test_cpuset_given_late(start):
    """A container without processors of its own gets them by an update, and leaves nothing behind."""
    needs("cpuset")
    container = start()
    container.update(cpuset="0")
    assert "0" == _allowed(container)
    container.stop(timeout=5)
    assert () == tuple(observing.directories(container.engine, container.id))


def _allowed(container: Container) -> str:
    return container.exec(["sh", "-c", "grep Cpus_allowed_list /proc/1/status"]).stdout.split()[1]


# ---- block devices ----------------------------------------------------------


def test_block_io(start):
    """Limits of a block device are set for it."""
    needs("blkio" if cgroups.detect().of("blkio") else "io")
    device = _disk()
    number = f"{os.major(device[1])}:{os.minor(device[1])}"
    container = start(blkio_config={"device_read_bps": [{"path": device[0], "rate": "1m"}]})
    name = "blkio" if cgroups.detect().of("blkio") else "io"
    found = value(container, name, "blkio.throttle.read_bps_device", "io.max")
    assert found.split()[:2] in ([number, str(MIB)], [number, f"rbps={MIB}"])


def _disk() -> tuple[str, int]:
    for name in sorted(os.listdir("/sys/block")):
        path = f"/dev/{name}"
        if os.path.exists(path) and not name.startswith(("loop", "ram", "zram")):
            return path, os.stat(path).st_rdev
    pytest.skip("no block device here")


# ---- all of them ------------------------------------------------------------


def test_limits_together_and_gone(start):
    """All limits together are set, and the groups are gone with the container."""
    for controller in ("memory", "pids", "cpu"):
        needs(controller)
    container = start(mem_limit="64m", pids_limit=30, cpus=1, cpu_shares=100, mem_reservation="32m")
    directories = [d.path for d in observing.directories(container.engine, container.id)]
    assert directories
    assert all(os.path.isdir(path) for path in directories)
    container.remove(force=True)
    assert [] == [path for path in directories if os.path.exists(path)]


def test_exec_is_limited_too(start):
    """A process run in the container is in its groups."""
    needs("pids")
    container = start(pids_limit=30)
    before = container.stats().pids
    with container.popen(["sleep", "1000"]) as process:
        assert before + 1 == container.stats().pids
        assert process.pid in [p.pid for p in container.top()]
        process.send_signal("SIGKILL")


def test_bad_updates(start):
    """An update that cannot be is refused by name, and changes nothing."""
    container = start(pids_limit=30)
    with pytest.raises(InvalidOption, match="lots"):
        container.update(mem_limit="lots")
    with pytest.raises(TypeError, match="name"):
        container.update(name="other")
    with pytest.raises((InvalidOption, NotSupported), match="cpuset"):
        container.update(cpuset="4000")
    assert 30 == container.config.resources.pids_limit
    assert "running" == container.status


def test_update_of_a_container_that_does_not_run(create):
    """An update of an idle container counts at its next start."""
    needs("pids")
    container = create()
    container.update(pids_limit=17)
    container.start()
    assert "17" == value(container, "pids", "pids.max", "pids.max")
