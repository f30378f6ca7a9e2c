# SPDX-License-Identifier: Apache-2.0
"""
What control groups this host has, and where containers may be put.

:func:`detect` reads ``/proc/self/mountinfo`` and ``/proc/self/cgroup`` once
per process.  Version 1 mounts a hierarchy per controller, version 2 has one
for all, a hybrid host has both; each controller is bound to one hierarchy.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Literal

import attrs

Kind = Literal["v1", "v2", "hybrid", "none"]

V1_CONTROLLERS = frozenset(
    {
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    }
)

_ESCAPE = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class Hierarchy:
    """
    One mounted tree of control groups.

    *own* is the caller's group and *parent* where containers go unless they
    ask for another; both are directories.  *reason* says why nothing can be
    made below *parent*, *enabled* which controllers of version 2 the groups
    below it have already, and *blocked* why no more can be enabled.
    """

    version: int
    mount: str
    controllers: tuple[str, ...]
    own: str
    parent: str
    writable: bool = True
    reason: str = ""
    enabled: tuple[str, ...] = ()
    blocked: str = ""


@attrs.frozen(kw_only=True)
class CgroupLayout:
    """
    The host's control groups as one process sees them.
    """

    kind: Kind
    hierarchies: tuple[Hierarchy, ...] = ()

    def of(self, controller: str) -> Hierarchy | None:
        """
        The hierarchy that has *controller*: version 1 where both do.

        ``blkio`` and ``io`` are one; version 2 counts processor time,
        freezes and filters devices without a controller of that name.
        """
        names = {"blkio", "io"} if controller in ("blkio", "io") else {controller}
        for hierarchy in self.hierarchies:
            if names.intersection(hierarchy.controllers):
                return hierarchy
        if controller in ("cpuacct", "freezer", "devices"):
            return self.unified
        return None

    @property
    def unified(self) -> Hierarchy | None:
        """
        The hierarchy of version 2, with or without controllers.
        """
        for hierarchy in self.hierarchies:
            if hierarchy.version == 2:
                return hierarchy
        return None


def parse_mountinfo(text: str) -> list[tuple[str, str, str, str]]:
    """
    The control group mounts of a mountinfo: (root, mount point, file system
    type, super block options), in mount order.
    """
    found = []
    for line in text.splitlines():
        fields, separator, rest = line.partition(" - ")
        after = rest.split(" ")
        if not separator or after[0] not in ("cgroup", "cgroup2"):
            continue
        before = fields.split(" ")
        found.append((_unescape(before[3]), _unescape(before[4]), after[0], after[-1]))
    return found


def parse_membership(text: str) -> dict[str, str]:
    """
    The groups of a ``/proc/<pid>/cgroup`` by controller; version 2 is ``""``.
    """
    groups = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0":
            groups[""] = path
        else:
            groups.update(dict.fromkeys(names.split(","), path))
    return groups


def _unescape(text: str) -> str:
    """
    A path of mountinfo, where blanks and backslashes are octal.
    """
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def directory(mount: str, root: str, path: str) -> str:
    """
    The directory of the group *path* under a *mount* that shows *root*.

    A group outside of what the mount shows (a container whose host did not
    give it a cgroup namespace) is taken to be the mount itself.
    """
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            return mount
        path = path[len(root) :]
    return mount if path in ("", "/") or path.startswith("/..") else mount + path


_cached: CgroupLayout | None = None


def detect(*, refresh: bool = False) -> CgroupLayout:
    """
    The layout of this host, read once per process.
    """
    global _cached
    if _cached is None or refresh:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            membership = file.read()
        _cached = read_layout(mounts, membership)
    return _cached


def read_layout(mountinfo: str, membership: str) -> CgroupLayout:
    """
    The layout that the texts of the two files describe.
    """
    groups = parse_membership(membership)
    ones: list[Hierarchy] = []
    twos: list[Hierarchy] = []
    taken: set[str] = set()
    for root, mount, kind, options in parse_mountinfo(mountinfo):
        if kind == "cgroup2":
            if not twos:
                twos.append(_unified(mount, directory(mount, root, groups.get("", "/"))))
            continue
        names = tuple(sorted(V1_CONTROLLERS.intersection(options.split(",")) - taken))
        if names:
            taken.update(names)
            ones.append(_legacy(mount, names, directory(mount, root, groups.get(names[0], "/"))))
    if twos and ones:
        # An empty version 2 beside version 1 is hybrid all the same: it can
        # filter devices and kill a whole group at once.
        return CgroupLayout(kind="hybrid", hierarchies=(*ones, *twos))
    if twos:
        return CgroupLayout(kind="v2", hierarchies=tuple(twos))
    return CgroupLayout(kind="v1" if ones else "none", hierarchies=tuple(ones))


def _may_create(path: str) -> bool:
    """
    Whether groups can be made in *path* and processes moved out of it.
    """
    return os.access(path, os.W_OK | os.X_OK) and os.access(f"{path}/cgroup.procs", os.W_OK)


def _legacy(mount: str, names: tuple[str, ...], own: str) -> Hierarchy:
    """
    A hierarchy of version 1: the top if that is ours, else the own group.
    """
    for parent in (mount, own):
        if _may_create(parent):
            return Hierarchy(version=1, mount=mount, controllers=names, own=own, parent=parent)
    return Hierarchy(
        version=1,
        mount=mount,
        controllers=names,
        own=own,
        parent=own,
        writable=False,
        reason=f"{own} may not be written by user {os.geteuid()}; version 1 groups are rarely delegated: "
        "run as root, or boot the host with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
    )


def read_words(path: str) -> tuple[str, ...]:
    """
    The words of a file, none if there is no such file.

    ENODEV: the group was removed after its file was opened.
    """
    try:
        with open(path, encoding="ascii") as file:
            return tuple(file.read().split())
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return ()


def _unified(mount: str, own: str) -> Hierarchy:
    """
    The hierarchy of version 2 and the best parent in it.

    Root takes the top.  Otherwise it is the nearest group, from the caller's
    own upwards, that is ours and may have controllers below it; a group with
    processes in it may not (the root of the whole tree excepted).
    """
    if os.geteuid() == 0 and _may_create(mount):
        return _describe(mount, own, mount)
    candidates: list[str] = []
    group = own
    while _may_create(group):
        # No process may enter a group below one with threads apart.
        if read_words(f"{group}/cgroup.type") in ((), ("domain",)):
            candidates.append(group)
        if group == mount:
            break
        group = os.path.dirname(group)
    if not candidates:
        available = read_words(f"{own}/cgroup.controllers")
        return Hierarchy(
            version=2,
            mount=mount,
            controllers=available,
            own=own,
            parent=own,
            writable=False,
            reason=f"{own} is not delegated to user {os.geteuid()}: start the program with "
            "'systemd-run --user --scope -p Delegate=yes', or let an administrator delegate a group",
        )
    described = [_describe(mount, own, group) for group in candidates]
    # A group with controllers below it already, like a slice of the user's
    # systemd, needs no process to be moved.
    for found in described:
        if found.enabled:
            return found
    return next((found for found in described if not found.blocked), described[0])


def _describe(mount: str, own: str, parent: str) -> Hierarchy:
    """
    What version 2 offers below *parent*.
    """
    available = read_words(f"{parent}/cgroup.controllers")
    enabled = read_words(f"{parent}/cgroup.subtree_control")
    blocked = ""
    # Only the real root lacks cgroup.type, and only it may have processes
    # beside groups with controllers.
    if not enabled and os.path.exists(f"{parent}/cgroup.type"):
        strangers = [pid for pid in read_words(f"{parent}/cgroup.procs") if not descends(int(pid))]
        if strangers:
            blocked = (
                f"processes {', '.join(strangers[:5])} sit in {parent} itself, and a group with processes "
                "cannot limit the groups below it: move them to a group below it, or start the program with "
                "'systemd-run --user --scope -p Delegate=yes'"
            )
    return Hierarchy(
        version=2,
        mount=mount,
        controllers=available,
        own=own,
        parent=parent,
        enabled=enabled,
        blocked=blocked,
    )


def descends(pid: int) -> bool:
    """
    Whether *pid* is this process or was started by it, directly or not.
    """
    me = os.getpid()
    while pid > 1:
        if pid == me:
            return True
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return pid == me
