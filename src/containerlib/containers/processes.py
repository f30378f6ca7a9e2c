# SPDX-License-Identifier: Apache-2.0
"""
What runs in a container, seen from outside: processes, statistics, and the
way in for new ones.

Only the host's /proc is read, and nothing of the container's is executed
(CVE-2022-1227: ``podman top`` ran the container's own ``ps``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from containerlib.containers import observing, starting
from containerlib.errors import Conflict
from containerlib.runtime import cgroups
from containerlib.runtime.exec import Target
from containerlib.types import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.engine import Engine
    from containerlib.types import ContainerConfig, ContainerState, Stats

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def running_state(engine: Engine, id: str, name: str, *, doing: str) -> ContainerState:
    """
    The state of a container that must be running.
    """
    state = observing.observe(engine, id)
    if not state.running:
        message = f"container {name} is {state.status}: only a running container can be {doing}"
        raise Conflict(message, subject=name)
    return state


@contextlib.contextmanager
def target(engine: Engine, config: ContainerConfig) -> Iterator[Target]:
    """
    The container as something to run a process in.
    """
    state = running_state(engine, config.id, config.name, doing="entered")
    if state.status == "paused":
        message = f"container {config.name} is paused: unpause it before running something in it"
        raise Conflict(message, subject=config.name)
    with starting.peer(engine, config.id) as peer:
        yield Target(
            config=config,
            pid=peer.pid,
            pidfd=peer.pidfd,
            directories=observing.directories(engine, config.id, config),
            mapping=engine.mapping,
            cache=engine.cache,
        )


def pids(engine: Engine, config: ContainerConfig) -> list[int]:
    """
    The host's pids of everything that runs in the container.
    """
    state = running_state(engine, config.id, config.name, doing="listed")
    found = observing.directories(engine, config.id, config)
    if found:
        return sorted(cgroups.pids(found))
    return _namespace_pids(state.pid)


def _namespace_pids(first: int) -> list[int]:
    """
    Without control groups: all that are in the first process's pid namespace.
    """
    try:
        wanted = os.stat(f"/proc/{first}/ns/pid").st_ino
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                    found.append(int(name))
    return sorted(found)


def top(engine: Engine, config: ContainerConfig) -> list[ProcessInfo]:
    """
    The container's processes.
    """
    found = pids(engine, config)
    if not found:
        return []
    boot = _boot_time()
    names = _user_names(found[0])
    processes = []
    for pid in found:
        with contextlib.suppress(OSError, ValueError, IndexError):
            processes.append(_process(pid, boot, names))
    return processes


def _boot_time() -> int:
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return int(line.split()[1])
    return 0


def _user_names(pid: int) -> dict[int, str]:
    """
    Names from the container's own passwd file, which is only data: a regular
    file of bounded size, reached without leaving the container's root.
    """
    from containerlib import shim

    names: dict[int, str] = {}
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return names
    try:
        seen = shim.openat2(root, "etc/passwd", os.O_PATH, resolve=0x10 | 0x02)
    except OSError:
        return names
    finally:
        os.close(root)
    try:
        # Looked at before it is opened: some devices act on that alone.
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            return names
        fd = os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return names
    finally:
        os.close(seen)
    with open(fd, "rb") as file:
        for line in file.read(1 << 20).splitlines():
            parts = line.split(b":")
            if len(parts) >= 3 and parts[2].isdigit():
                names.setdefault(int(parts[2]), parts[0].decode(errors="replace"))
    return names


def _process(pid: int, boot: int, names: dict[int, str]) -> ProcessInfo:
    with open(f"/proc/{pid}/stat", "rb") as file:
        data = file.read()
    command = data[data.index(b"(") + 1 : data.rindex(b")")].decode(errors="replace")
    fields = data[data.rindex(b")") + 2 :].split()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(1 << 20).split(b"\0")[:-1]
    uid, inside = _identity(pid)
    ticks = int(fields[11]) + int(fields[12])
    started = datetime.fromtimestamp(boot + int(fields[19]) / _TICKS, UTC) if boot else None
    return ProcessInfo(
        pid=pid,
        ppid=int(fields[1]),
        uid=uid,
        user=names.get(uid, str(uid)),
        command=command,
        args=tuple(word.decode(errors="replace") for word in words),
        state=fields[0].decode(),
        tty=_terminal(int(fields[4])),
        threads=int(fields[17]),
        cpu_time=ticks / _TICKS,
        rss=int(fields[21]) * _PAGE,
        started=started,
        container_pid=inside,
    )


def _terminal(device: int) -> str:
    if device == 0:
        return "?"
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if 136 <= major <= 143 else f"{major}:{minor}"


def _identity(pid: int) -> tuple[int, int | None]:
    """
    The user and the pid that the container sees.
    """
    uid, inside = 0, None
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                uid = int(line.split()[1])
            elif line.startswith(b"NSpid:"):
                inside = int(line.split()[-1])
    with open(f"/proc/{pid}/uid_map", "rb") as file:
        rows = file.read().splitlines()
    if not rows:
        raise ProcessLookupError(pid)  # it is on its way out and has no namespace any more
    for row in rows:
        first, outside, length = map(int, row.split())
        if outside <= uid < outside + length:
            return uid - outside + first, inside
    return uid, inside


def stats(engine: Engine, config: ContainerConfig) -> Stats:
    """
    What the container has used up to now.
    """
    state = running_state(engine, config.id, config.name, doing="measured")
    return cgroups.read_stats(observing.directories(engine, config.id, config), state.pid)
