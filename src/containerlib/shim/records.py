# SPDX-License-Identifier: Apache-2.0
"""
The structures that C and Python both read, as frozen values.
"""

from __future__ import annotations

import attrs

from containerlib.errors import CorruptState
from containerlib.shim._shim import ffi, lib
from containerlib.shim.constants import Health, Stage, Status

PLAN_MAGIC: int = lib.CL_PLAN_MAGIC
PLAN_VERSION: int = lib.CL_PLAN_VERSION
STATE_SIZE: int = lib.CL_STATE_SIZE
MSG_MAX: int = lib.CL_MSG_MAX
HEALTH_SLOTS: int = lib.CL_HEALTH_SLOTS


@attrs.frozen(kw_only=True)
class CError:
    """
    What C reports: errno, the step, and the operation with its operand.
    """

    code: int
    stage: Stage
    message: str


@attrs.frozen(kw_only=True)
class State:
    """
    What a monitor last wrote about its container; times in ns since 1970.

    *exit_code* is -1 while unknown.  Whether the container *runs* is not
    written here: the lock on the file says it.
    """

    status: Status = Status.CREATED
    pid: int = 0
    monitor_pid: int = 0
    exit_code: int = -1
    signal: int = 0
    core_dumped: bool = False
    oom_killed: bool = False
    restart_count: int = 0
    stopped_by_user: bool = False
    health: Health = Health.NONE
    health_streak: int = 0
    health_count: int = 0
    pid_start: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss_kb: int = 0
    mounts_id: int = 0
    boot_id: str = ""
    error: CError | None = None


@attrs.frozen(kw_only=True)
class HealthResult:
    """
    One health check: times in ns since 1970, exit code, output.
    """

    start_ns: int
    end_ns: int
    exit_code: int
    output: bytes


def decode_error(data: bytes) -> CError:
    """
    Read a ``struct cl_error``.
    """
    record = ffi.new("struct cl_error *")
    ffi.memmove(record, data, min(len(data), ffi.sizeof("struct cl_error")))
    return _error(record)


def _error(record: object) -> CError:
    stage = record.stage  # type: ignore[attr-defined]  # cdata
    return CError(
        code=record.code,  # type: ignore[attr-defined]
        stage=Stage(stage) if stage in Stage._value2member_map_ else Stage.NONE,
        message=ffi.string(record.msg).decode(errors="replace"),  # type: ignore[attr-defined]
    )


def decode_state(data: bytes) -> State | None:
    """
    Read a ``struct cl_state``; None when a write is under way (read again).
    """
    size = ffi.sizeof("struct cl_state")
    if len(data) < size:
        raise CorruptState(f"state record of {len(data)} bytes, expected {size}")
    record = ffi.new("struct cl_state *")
    ffi.memmove(record, data, size)
    if record.magic != lib.CL_STATE_MAGIC or record.version != lib.CL_STATE_VERSION:
        raise CorruptState("not a state record of this version of containerlib")
    if record.seq != record.seq_end:
        return None
    return State(
        status=Status(record.status),
        pid=record.pid,
        monitor_pid=record.monitor_pid,
        exit_code=record.exit_code,
        signal=record.signal,
        core_dumped=bool(record.core_dumped),
        oom_killed=bool(record.oom_killed),
        restart_count=record.restart_count,
        stopped_by_user=bool(record.stopped_by_user),
        health=Health(record.health),
        health_streak=record.health_streak,
        health_count=record.health_count,
        pid_start=record.pid_start,
        started_ns=record.started_ns,
        finished_ns=record.finished_ns,
        user_us=record.user_us,
        system_us=record.system_us,
        max_rss_kb=record.max_rss_kb,
        mounts_id=record.mounts_id,
        boot_id=ffi.string(record.boot_id).decode(errors="replace"),
        error=_error(record.error) if record.error.stage else None,
    )


def encode_state(*, boot_id: str, status: Status = Status.CREATED) -> bytes:
    """
    A state record for a container that has not run yet, padded to its full
    size, so that later writes never need a new block.
    """
    record = ffi.new("struct cl_state *")
    record.magic = lib.CL_STATE_MAGIC
    record.version = lib.CL_STATE_VERSION
    record.status = status
    record.exit_code = -1
    record.boot_id = boot_id.encode()[:39]
    return bytes(ffi.buffer(record)).ljust(STATE_SIZE, b"\0")


def move_state_to_boot(data: bytes, boot_id: str) -> bytes:
    """
    The record of a container that ran before the host was restarted, for a
    start in this boot: its processes are gone, what it told stays.
    """
    record = ffi.new("struct cl_state *")
    ffi.memmove(record, data, ffi.sizeof("struct cl_state"))
    if record.status in (Status.STARTING, Status.RUNNING, Status.RESTARTING):
        record.status = Status.EXITED
        record.exit_code = -1
    record.pid = record.monitor_pid = record.pid_start = 0
    record.boot_id = boot_id.encode()[:39]
    return bytes(ffi.buffer(record))


def decode_health(data: bytes) -> list[HealthResult]:
    """
    The slots of a container's file "health", in the order of the file.
    """
    size = ffi.sizeof("struct cl_health_result")
    results = []
    for at in range(0, len(data) - size + 1, size):
        record = ffi.new("struct cl_health_result *")
        ffi.memmove(record, data[at : at + size], size)
        output = bytes(ffi.buffer(record.output))[: max(0, record.size)]
        results.append(
            HealthResult(
                start_ns=record.start_ns, end_ns=record.end_ns, exit_code=record.exit_code, output=output
            )
        )
    return results
