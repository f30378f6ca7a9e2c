# SPDX-License-Identifier: Apache-2.0
"""
Where a container stands: observed, never remembered.

A monitor holds the lock of its container's state file for as long as it
lives, so whether a container runs is a question to the kernel.  What the file
says is only the story: a record that says "running" without a lock tells of a
monitor that was killed or of a host that went down, and the exit code is lost.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

import attrs

from containerlib import shim
from containerlib.errors import ContainerNotFound, CorruptState
from containerlib.runtime import cgroups, leftovers
from containerlib.shim import Health, Status
from containerlib.store import makers
from containerlib.types import ContainerConfig, ContainerState, HealthResult

if TYPE_CHECKING:
    from containerlib.engine import Engine

STATE = "state"
OWNER_AT = 768  # the record ends before it; the rest of the file is Python's
_WORDS = {
    Status.CREATED: "created",
    Status.STARTING: "created",
    Status.RUNNING: "running",
    Status.RESTARTING: "restarting",
    Status.EXITED: "exited",
    Status.REMOVING: "removing",
}
_HEALTH = {
    Health.NONE: None,
    Health.STARTING: "starting",
    Health.HEALTHY: "healthy",
    Health.UNHEALTHY: "unhealthy",
}


def initial_state(*, owned: bool) -> bytes:
    """
    The state file of a container that has not run; who owns it stands behind.
    """
    record = shim.encode_state(boot_id=makers.boot_id())
    owner = makers.identity().encode() if owned else b""
    return record[:OWNER_AT] + owner.ljust(len(record) - OWNER_AT, b"\0")


def read_config(engine: Engine, id: str) -> ContainerConfig:
    """
    What the container was asked to be.
    """
    return ContainerConfig.from_json(engine.store.containers.read(id, "config.json"))


def current_config(engine: Engine, id: str) -> ContainerConfig:
    """
    The same with the container's present name.
    """
    config = read_config(engine, id)
    name = engine.store.containers.name(id)
    return config if name in (None, config.name) else attrs.evolve(config, name=name)


def open_state(engine: Engine, id: str, *, write: bool = False) -> int:
    """
    Open the state file; the caller closes it.
    """
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = engine.store.containers.open(id)
    try:
        return os.open(STATE, flags, dir_fd=fd)
    except FileNotFoundError:
        if not engine.store.containers.exists(id):
            raise ContainerNotFound(f"no container {id[:12]}", subject=id) from None
        message = f"container {id[:12]} has no state file; remove it with force=True"
        raise CorruptState(message, subject=id) from None
    finally:
        os.close(fd)


def is_locked(fd: int) -> bool:
    """
    Whether a monitor lives.

    A shared lock is tried, and let go at once: several observers do not
    disturb each other, and whoever wants to start tries again.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def read_record(fd: int, id: str) -> shim.State:
    """
    The record in the state file, read between two writes.
    """
    for _ in range(1000):
        record = shim.decode_state(os.pread(fd, shim.STATE_SIZE, 0))
        if record is not None:
            return record
    message = f"container {id[:12]}: its state file is never whole; remove it with force=True"
    raise CorruptState(message, subject=id)


def read_owner(fd: int) -> str:
    """
    The maker string of the process that owns the container, or nothing.
    """
    return os.pread(fd, 256, OWNER_AT).split(b"\0", 1)[0].decode(errors="replace")


def observe(engine: Engine, id: str) -> ContainerState:
    """
    The container's state now.
    """
    fd = open_state(engine, id)
    try:
        locked = is_locked(fd)
        record = read_record(fd, id)
    finally:
        os.close(fd)
    if not locked and record.status in (Status.RUNNING, Status.RESTARTING, Status.STARTING):
        end_orphan(record)
        return _lost(engine, id, record)
    status = _WORDS[record.status]
    if locked and record.status is Status.RUNNING and is_paused(engine, id, record.pid):
        status = "paused"
    return _state(engine, id, record, status)


def _lost(engine: Engine, id: str, record: shim.State) -> ContainerState:
    """
    A monitor that did not live to tell.
    """
    if record.boot_id and record.boot_id != makers.boot_id():
        error = "the host was restarted while the container ran: its exit code is not known"
    else:
        error = "the container's monitor was killed: its exit code is not known"
    state = _state(engine, id, record, "exited")
    return attrs.evolve(state, exit_code=None, pid=0, error=error, health=None)


def _state(engine: Engine, id: str, record: shim.State, status: str) -> ContainerState:
    error = ""
    if record.error is not None:
        error = f"{record.error.message}: {os.strerror(record.error.code)}"
    ended = status in ("exited", "dead", "restarting", "removing")
    return ContainerState(
        status=status,
        pid=record.pid if status in ("running", "paused") else 0,
        exit_code=record.exit_code if record.exit_code >= 0 and (ended or error) else None,
        signal=record.signal,
        started_ns=record.started_ns,
        finished_ns=record.finished_ns,
        oom_killed=record.oom_killed,
        core_dumped=record.core_dumped,
        error=error,
        restart_count=record.restart_count,
        stopped_by_user=record.stopped_by_user,
        health=_HEALTH[record.health],
        health_streak=record.health_streak,
        health_log=_health_log(engine, id, record.health_count) if record.health_count else (),
        monitor_pid=record.monitor_pid,
        user_seconds=record.user_us / 1e6,
        system_seconds=record.system_us / 1e6,
        maximum_rss=record.max_rss_kb * 1024,
    )


def _health_log(engine: Engine, id: str, count: int) -> tuple[HealthResult, ...]:
    try:
        slots = shim.decode_health(engine.store.containers.read(id, "health"))
    except (CorruptState, ContainerNotFound):
        return ()
    first = count % len(slots) if count > len(slots) and slots else 0
    return tuple(
        HealthResult(
            started_ns=slot.start_ns,
            finished_ns=slot.end_ns,
            exit_code=slot.exit_code,
            output=slot.output.decode(errors="replace"),
        )
        for slot in slots[first:] + slots[:first]
    )


def directories(
    engine: Engine, id: str, config: ContainerConfig | None = None, *, pid: int | None = None
) -> tuple[cgroups.CgroupDirectory, ...]:
    """
    The container's control groups, those that exist.

    With the *pid* of one of its processes they are found wherever they are:
    another process of the same user may have had another delegated group.
    """
    parent = (config or read_config(engine, id)).cgroup_parent
    return cgroups.find(id, parent=parent, pid=pid)


def is_paused(engine: Engine, id: str, pid: int) -> bool:
    """
    Whether the container's processes are frozen.
    """
    try:
        found = directories(engine, id, pid=pid)
    except (CorruptState, ContainerNotFound):
        return False
    return bool(found) and cgroups.is_frozen(found)


def end_orphan(record: shim.State) -> None:
    """
    End what a killed monitor left running.

    The parent-death signal ends nearly all; a program that has changed its
    credentials can be without it.  The process is known by pid and start
    time, so a reused pid is never hit.
    """
    if record.boot_id != makers.boot_id():
        return
    if record.mounts_id:
        leftovers.kill(record.mounts_id)
    if record.pid <= 1 or not record.pid_start:
        return
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if makers.start_time(record.pid) == record.pid_start:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(pidfd)
