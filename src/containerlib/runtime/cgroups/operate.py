# SPDX-License-Identifier: Apache-2.0
"""
What is done to the groups of a container that exists: pause, end, count, remove.

Everything takes the directories of the container's plan, or those that
:func:`find` sees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from containerlib.errors import ContainerTimeout, KernelError, NotSupported
from containerlib.runtime.cgroups.layout import CgroupLayout, detect, parse_membership, read_words
from containerlib.runtime.cgroups.plan import PREFIX, CgroupDirectory, _kind, group_name, parent_of, write
from containerlib.shim import CgroupKind

PATIENCE = 10.0
"""
Seconds that the kernel is given to freeze, or to let go of, a group.
"""


def find(
    id: str, *, parent: str | None = None, pid: int | None = None, layout: CgroupLayout | None = None
) -> tuple[CgroupDirectory, ...]:
    """
    The groups of the container *id* that exist: those that its process *pid*
    sits in, and those below the usual parents, or below *parent*.
    """
    layout = detect() if layout is None else layout
    name = group_name(id)
    found: tuple[CgroupDirectory, ...] = ()
    if pid:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = of_process(pid, id, layout=layout)
    seen = {directory.path for directory in found}
    more = []
    for hierarchy in layout.hierarchies:
        path = f"{parent_of(hierarchy, parent)}/{name}"
        if path not in seen and os.path.isdir(path):
            more.append(CgroupDirectory(hierarchy.version, _kind(hierarchy), path, hierarchy.controllers))
    return (*found, *more)


def of_process(pid: int, id: str, *, layout: CgroupLayout | None = None) -> tuple[CgroupDirectory, ...]:
    """
    The groups of the container *id* that its process *pid* sits in.

    Wherever they were made: another process of the same user may have
    another delegated group than ours.
    """
    name = group_name(id)
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        groups = parse_membership(file.read())
    found = []
    for hierarchy in (detect() if layout is None else layout).hierarchies:
        path = groups.get("" if hierarchy.version == 2 else hierarchy.controllers[0], "")
        head, inside, _ = (path + "/").partition(f"/{name}/")
        if inside:
            # What the mount hides of the path is hidden from our own group's
            # path as well.
            directory = f"{hierarchy.mount}{head}/{name}"
            if os.path.isdir(directory):
                found.append(
                    CgroupDirectory(hierarchy.version, _kind(hierarchy), directory, hierarchy.controllers)
                )
    return tuple(found)


def directory_for(directories: Iterable[CgroupDirectory], controller: str) -> CgroupDirectory | None:
    """
    The group that has *controller*, version 1 before version 2.
    """
    unified = None
    for directory in directories:
        if directory.version == 2:
            unified = directory
        elif controller in directory.controllers:
            return directory
    return unified


def _tree(path: str) -> Iterator[str]:
    """
    *path* and the groups below it, the lowest first.
    """
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for name in names:
        yield from _tree(f"{path}/{name}")
    yield path


def _processes(path: str) -> set[int]:
    found: set[int] = set()
    for group in _tree(path):
        try:
            found.update(map(int, read_words(f"{group}/cgroup.procs")))
        except OSError as error:
            # The group went away between listing and reading, or it is a
            # threaded one, whose processes the group above lists.
            if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
                raise
    found.discard(0)
    return found


def pids(directories: Sequence[CgroupDirectory]) -> list[int]:
    """
    The container's processes, in groups below its own too, ascending.
    """
    for controller in ("pids", "memory", "freezer"):
        directory = directory_for(directories, controller)
        if directory is not None:
            return sorted(_processes(directory.path))
    return sorted(_processes(directories[0].path)) if directories else []


def _freezer(directories: Sequence[CgroupDirectory]) -> CgroupDirectory:
    for directory in directories:
        if directory.version == 2 or "freezer" in directory.controllers:
            return directory
    raise NotSupported(
        "pause: the container has no control group that can be frozen: run as root, or from a delegated "
        "group ('systemd-run --user --scope -p Delegate=yes')",
        subject="freezer",
    )


def _wait(directory: CgroupDirectory, *, file: str, done: Callable[[], bool], timeout: float) -> bool:
    """
    Wait until *done*, woken by the changes of *file* where there are any.

    Version 2 notifies through poll; version 1 moves a freezing on when its
    state is read, so it is asked again at growing intervals.
    """
    end = time.monotonic() + timeout
    pause = 0.0001
    poll = select.poll()
    try:
        descriptor = os.open(f"{directory.path}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = -1
    try:
        if descriptor >= 0 and directory.version == 2:
            poll.register(descriptor, select.POLLPRI)
        while True:
            # The descriptor's own read arms the next notification, so it
            # comes before the question.
            if descriptor >= 0:
                try:
                    os.pread(descriptor, 4096, 0)
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
                    return done()
            if done():
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            # Never for long: a notification only says that something changed.
            poll.poll(min(left, 0.1 if directory.version == 2 and descriptor >= 0 else pause) * 1000)
            pause = min(pause * 2, 0.02)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def is_frozen(directories: Sequence[CgroupDirectory]) -> bool:
    """
    Whether every process of the container stands still.
    """
    try:
        directory = _freezer(directories)
    except NotSupported:
        return False
    if directory.version == 2:
        return "frozen 1" in " ".join(read_words(f"{directory.path}/cgroup.events"))
    return read_words(f"{directory.path}/freezer.state") == ("FROZEN",)


def freeze(directories: Sequence[CgroupDirectory], *, timeout: float = PATIENCE) -> None:
    """
    Stop every process of the container where it is, and wait until all are.

    Raises:
        ContainerTimeout:
            If one did not stop, as in an uninterruptible wait; everything
            runs again then.
    """
    directory = _freezer(directories)
    two = directory.version == 2
    file = "cgroup.freeze" if two else "freezer.state"
    write(f"{directory.path}/{file}", "1" if two else "FROZEN")
    frozen = False
    try:
        frozen = _wait(
            directory,
            file="cgroup.events" if two else "freezer.state",
            done=lambda: is_frozen([directory]),
            timeout=timeout,
        )
    finally:
        if not frozen:
            thaw([directory])
    if not frozen:
        raise ContainerTimeout(
            f"pause: {directory.path}: a process did not stop within {timeout:g} s, it may wait for a "
            "disk or a file server: try again",
            subject=directory.path,
        )


def thaw(directories: Sequence[CgroupDirectory]) -> None:
    """
    Let the container's processes go on.
    """
    directory = _freezer(directories)
    if directory.version == 2:
        write(f"{directory.path}/cgroup.freeze", "0")
    else:
        write(f"{directory.path}/freezer.state", "THAWED")


def kill(directories: Sequence[CgroupDirectory]) -> None:
    """
    End every process of the container.

    Version 2 does it in one step since Linux 5.14.  Otherwise they are frozen
    first, so that none can fork away, and always let go again: a frozen
    process dies only when it is thawed.
    """
    for directory in directories:
        file = f"{directory.path}/cgroup.kill"
        if directory.version == 2 and os.path.exists(file) and _processes(directory.path):
            write(file, "1")
            return
    try:
        freezer: CgroupDirectory | None = _freezer(directories)
    except NotSupported:
        freezer = None
    if freezer is None or not os.path.isdir(freezer.path):
        _kill_all(directories)
        return
    try:
        # One that cannot be frozen cannot fork either.
        with contextlib.suppress(ContainerTimeout):
            freeze([freezer])
        _kill_all([freezer])
    finally:
        thaw([freezer])


def _kill_all(directories: Sequence[CgroupDirectory]) -> None:
    """
    Send SIGKILL until no round finds a process that the one before did not.
    """
    seen: set[int] = set()
    while True:
        found = set(pids(directories))
        if found <= seen:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        seen |= found


def remove(directories: Sequence[CgroupDirectory], *, timeout: float = PATIENCE) -> None:
    """
    Remove the container's groups and those below them; what is gone is fine.

    Raises:
        KernelError:
            EBUSY, naming the group, if a process is still in it at the end.
    """
    end = time.monotonic() + timeout
    for directory in reversed(directories):
        for path in list(_tree(directory.path)):
            _remove_one(directory, path, end)


def _remove_one(directory: CgroupDirectory, path: str, end: float) -> None:
    def gone() -> bool:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise KernelError(
                    f"cgroup: remove {path}", errno=error.errno or errno.EIO, stage="cgroup", path=path
                ) from None
            return False
        return True

    if gone():
        return
    left = max(0.0, end - time.monotonic())
    if directory.version == 1:
        _wait_for_exits(path, end)
    watched = CgroupDirectory(directory.version, directory.kind, path, directory.controllers)
    if not _wait(watched, file="cgroup.events", done=gone, timeout=left):
        raise KernelError(
            f"cgroup: remove {path}: processes {sorted(_processes(path))[:8]} are still in it",
            errno=errno.EBUSY,
            stage="cgroup",
            path=path,
        )


def _wait_for_exits(path: str, end: float) -> None:
    """
    Wait for the end of the processes in a group of version 1, which tells
    nobody when it is empty.
    """
    for pid in _processes(path):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        finally:
            os.close(descriptor)


def sweep(keep: Callable[[str], bool], *, layout: CgroupLayout | None = None) -> list[str]:
    """
    Remove the empty groups of containers that are no more, and name them.

    *keep* tells whether the container of an id is there.  Left over are
    groups whose monitor was killed.
    """
    removed = []
    for hierarchy in (detect() if layout is None else layout).hierarchies:
        if not hierarchy.writable:
            continue
        for entry in list(os.scandir(hierarchy.parent)):
            identity = entry.name.removeprefix(PREFIX)
            if identity in (entry.name, "caller") or keep(identity) or _processes(entry.path):
                continue
            directory = CgroupDirectory(
                hierarchy.version, CgroupKind.OTHER, entry.path, hierarchy.controllers
            )
            try:
                remove([directory], timeout=0)
            except KernelError:
                continue
            removed.append(entry.path)
    return removed


def oom_count(directories: Sequence[CgroupDirectory]) -> int:
    """
    How many processes the kernel has ended for want of memory.

    0 where memory is not counted, or before Linux 4.13.
    """
    directory = directory_for(directories, "memory")
    if directory is None:
        return 0
    file = "memory.events" if directory.version == 2 else "memory.oom_control"
    words = read_words(f"{directory.path}/{file}")
    return next(
        (int(value) for key, value in zip(words[::2], words[1::2], strict=False) if key == "oom_kill"), 0
    )
