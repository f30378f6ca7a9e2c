# SPDX-License-Identifier: Apache-2.0
"""
Which ids a container's users have on the host.

Root needs no map.  A user has the ranges that /etc/subuid grants, given by the
set-uid programs newuidmap and newgidmap; where there are none, one id: root
inside is the user outside.  The namespace with the ranges is made once a
process and kept by its descriptor, since the two programs cost milliseconds.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import socket

import attrs

from containerlib import shim
from containerlib.errors import KernelError, NotSupported
from containerlib.shim import Msg, UsernsKind

CAP_SYS_ADMIN = 21


@attrs.frozen(kw_only=True)
class IdMapping:
    """
    How ids are mapped: ``none``, ``ranges`` or ``single``, and why.

    *uids* and *gids* are (inside, outside, length) triples.
    """

    kind: str
    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()
    reason: str = ""
    remedy: str = ""

    @property
    def userns(self) -> bool:
        """
        Whether the helper works in a user namespace of its own.
        """
        return self.kind != "none"


def _capable() -> bool:
    """
    Whether this process may mount: CAP_SYS_ADMIN in its effective set.
    """
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


@functools.cache
def in_userns() -> bool:
    """
    Whether this process is itself in a user namespace with a partial map.
    """
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            rows = [tuple(map(int, line.split())) for line in file]
    except FileNotFoundError:
        return False
    return rows != [(0, 0, 4294967295)]


def has_one_group() -> bool:
    """
    Whether this process's user namespace maps a single group: others, such as
    that of terminals, do not exist here.
    """
    try:
        with open("/proc/self/gid_map", encoding="ascii") as file:
            return sum(int(line.split()[2]) for line in file) == 1
    except FileNotFoundError:
        return False


def read_ranges(path: str, user: str, uid: int) -> list[tuple[int, int]]:
    """
    The (start, length) ranges that *path*, /etc/subuid or /etc/subgid, grants.

    See subuid(5): a line is ``name-or-uid:start:count``.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[0] in (user, str(uid)) and parts[1].isdecimal() and parts[2].isdecimal():
            start, count = int(parts[1]), int(parts[2])
            if count > 0 and start + count <= 1 << 32:
                ranges.append((start, count))
    return ranges


def _triples(own: int, ranges: list[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """
    Root inside is the caller; the ranges follow from 1 on, as podman has it.
    """
    triples = [(0, own, 1)]
    inside = 1
    for start, count in ranges:
        triples.append((inside, start, count))
        inside += count
    return tuple(triples[:30])


@functools.cache
def detect() -> IdMapping:
    """
    The mapping for this process, found once.
    """
    if os.geteuid() == 0 and _capable():
        return IdMapping(kind="none")
    uid, gid = os.geteuid(), os.getegid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    missing = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if missing:
        return IdMapping(
            kind="single",
            reason=f"{' and '.join(missing)} not found: only one id is mapped",
            remedy="install the package that has newuidmap (Debian: uidmap)",
        )
    uids, gids = read_ranges("/etc/subuid", user, uid), read_ranges("/etc/subgid", user, uid)
    if not uids or not gids:
        return IdMapping(
            kind="single",
            reason=f"/etc/subuid and /etc/subgid grant {user} no ranges: only one id is mapped",
            remedy=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    return IdMapping(kind="ranges", uids=_triples(uid, uids), gids=_triples(gid, gids))


_namespace = -1


def userns_fd() -> int | None:
    """
    The descriptor of this process's user namespace with ranges.

    None when root needs none, or when a single id is mapped: then each helper
    makes its own.
    """
    global _namespace  # one namespace a process
    mapping = detect()
    if mapping.kind != "ranges":
        return None
    if _namespace < 0:
        # No lock, which a fork could freeze: of two threads one wins.
        made = _make(mapping)
        if _namespace < 0:
            _namespace = made
        else:
            os.close(made)
    return _namespace


def _make(mapping: IdMapping) -> int:
    words = [str(n) for triple in mapping.uids for n in triple]
    words.append("--")
    words += [str(n) for triple in mapping.gids for n in triple]
    tools = [shutil.which("newuidmap") or "", shutil.which("newgidmap") or ""]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = shim.spawn(
                ["containerlib-init", "userns", *tools, *words], fds=[-1, -1, -1, -1, theirs.fileno()]
            )
        data, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        child.wait()
    if fds:
        os.set_inheritable(fds[0], False)
        return fds[0]
    if data[:4] and int.from_bytes(data[:4], "little") == Msg.ERROR:
        error = shim.decode_error(data[8:])
        if error.message.startswith("make a user namespace"):
            message = (
                f"no user namespace can be made here ({os.strerror(error.code)}); see "
                "/proc/sys/user/max_user_namespaces and /proc/sys/kernel/unprivileged_userns_clone"
            )
            raise NotSupported(message)
        raise KernelError(error.message, errno=error.code, stage="idmap", path="/etc/subuid")
    raise NotSupported("the helper that makes a user namespace died")


def plan_operands(mapping: IdMapping, fd_number: int) -> tuple[int, int, int, int]:
    """
    The operands of the plan's USERNS record; *fd_number* is the helper's
    number of the namespace's descriptor.
    """
    if mapping.kind == "none":
        return UsernsKind.NONE, -1, 0, 0
    if mapping.kind == "ranges":
        return UsernsKind.JOIN, fd_number, 0, 0
    return UsernsKind.SINGLE, -1, os.geteuid(), os.getegid()
