# SPDX-License-Identifier: Apache-2.0
"""
Capabilities: their names, and the set that a container gets.

A set is a frozenset of full names (``CAP_NET_ADMIN``); *mask* turns it into
the 64 bits that capset(2) and /proc/<pid>/status know.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from containerlib.errors import InvalidOption, NotSupported

# In the order of their numbers: the kernel's include/uapi/linux/capability.h.
NAMES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

# What a container has that asks for nothing; Docker's default.
DEFAULT = frozenset(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
        "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


def parse(name: str, *, option: str = "cap_add") -> str:
    """
    Return the full name of a capability given as people write it, or ``ALL``.

    Case does not matter and ``CAP_`` may be left out.
    """
    upper = name.upper() if isinstance(name, str) else ""
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _NUMBERS:
        raise InvalidOption(
            f"{option}: {name!r} is not a capability; use a name of capabilities(7), such as 'NET_ADMIN', "
            "or 'ALL'",
            subject=option,
        )
    return full


def mask(names: Iterable[str]) -> int:
    """
    Return the set *names* with bit n standing for the capability numbered n.
    """
    bits = 0
    for name in names:
        bits |= 1 << _NUMBERS[name]
    return bits


def names(mask: int) -> frozenset[str]:
    """
    Return the set that *mask* stands for; bits without a name here are left out.
    """
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


@cache
def last() -> int:
    """
    Return the number of the last capability that the running kernel knows.
    """
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


@cache
def bounding() -> int:
    """
    Return the mask of what this process can hand on: its bounding set.

    Read once: whoever drops from the bounding set does it before containers
    are started.
    """
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapBnd:"):
                return int(line.split()[1], 16)
    return 0


def obtainable(*, user_namespace: bool = False) -> int:
    """
    Return the mask of what a container started from here can have.

    In a new user namespace the kernel starts with the full set, whatever the
    bounding set was outside.
    """
    known = (1 << (last() + 1)) - 1
    return known if user_namespace else bounding() & known


def effective_set(
    *,
    cap_add: Iterable[str] = (),
    cap_drop: Iterable[str] = (),
    privileged: bool = False,
    available: int | None = None,
) -> frozenset[str]:
    """
    Return the capabilities of a container, by Docker's rules.

    A privileged container has all.  ``ALL`` in *cap_add* means all but those
    in *cap_drop*; otherwise ``ALL`` in *cap_drop* means only those in
    *cap_add*; otherwise *cap_drop* is taken from the default and *cap_add*
    added, so that a name in both is added.

    *available* is the mask of what the host can give, by default what the
    function *obtainable* says.  What the default or ``ALL`` would include
    without being in it is left out; a name asked for in *cap_add* raises
    `NotSupported`.
    """
    possible = names(obtainable() if available is None else available)
    added = {parse(name, option="cap_add") for name in cap_add}
    dropped = {parse(name, option="cap_drop") for name in cap_drop}
    for name in sorted(added - possible - {"ALL"}):
        raise NotSupported(_missing(name), subject=name)
    if privileged:
        return possible
    if "ALL" in added:
        return possible - dropped
    if "ALL" in dropped:
        return frozenset(added)
    return ((DEFAULT & possible) - dropped) | added


def _missing(name: str) -> str:
    if _NUMBERS[name] > last():
        return f"cap_add: this kernel has no {name}; leave it out, or run a newer kernel"
    return (
        f"cap_add: {name} is not in the bounding set of this process, so no container can be given it; "
        "leave it out, or start Python where it is (in a container: with cap_add there)"
    )
