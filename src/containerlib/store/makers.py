# SPDX-License-Identifier: Apache-2.0
"""
Who is making something: a process, told apart from all that ever had its pid.

A half-made thing is named ``.new-<id>-<maker>`` and a half-removed one
``.del-<id>-<maker>``, where the maker is pid, start time and boot id.
"""

from __future__ import annotations

import functools
import itertools
import os

from containerlib.store.locks import try_lock

MAKING = ".new-"
REMOVING = ".del-"


@functools.cache
def boot_id() -> str:
    """
    Return the kernel's id of this boot, without dashes.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip().replace("-", "")


def start_time(pid: int) -> int | None:
    """
    Return when process *pid* started, in clock ticks; None if it is gone.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command stands in parentheses and may hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


@functools.lru_cache(maxsize=2)
def _identity(pid: int) -> str:
    return f"{pid}-{start_time(pid)}-{boot_id()[:16]}"


def identity() -> str:
    """
    Return this process's maker string; a forked child has its own.
    """
    return _identity(os.getpid())


def making(id: str) -> str:
    """
    Return the name of the half-made *id* of this process.
    """
    return f"{MAKING}{id}-{identity()}"


_serial = itertools.count()


def scratch(name: str) -> str:
    """
    Return a temporary name for *name* that no other thread uses, either.
    """
    return f"{MAKING}{name}.{next(_serial)}-{identity()}"


def removing(id: str) -> str:
    """
    Return the name of the half-removed *id* of this process.
    """
    return f"{REMOVING}{id}-{identity()}"


def split(entry: str) -> tuple[str, str] | None:
    """
    Return id and maker of a temporary name, None for any other name.
    """
    if not entry.startswith((MAKING, REMOVING)):
        return None
    parts = entry.rsplit("-", 3)
    if len(parts) != 4:
        return None
    return parts[0][len(MAKING) :], "-".join(parts[1:])


def is_alive(maker: str) -> bool:
    """
    Say whether the process that *maker* names still runs.
    """
    try:
        pid, start, boot = maker.split("-")
        return boot == boot_id()[:16] and start_time(int(pid)) == int(start)
    except ValueError:
        return False


def is_abandoned(entry: str, *, dir_fd: int) -> bool:
    """
    Say whether the maker of the temporary *entry* is gone for good.

    A maker in another pid namespace looks dead from here, but it holds the
    lock of what it makes; one that has not locked yet still shows its pid.
    """
    found = split(entry)
    if found is None or is_alive(found[1]):
        return False
    try:
        fd = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return try_lock(fd)
    finally:
        os.close(fd)
