# SPDX-License-Identifier: Apache-2.0
"""
Starting a container: the lock, the root, the namespaces of others, the monitor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time
from typing import TYPE_CHECKING

from containerlib import shim
from containerlib.containers import observing
from containerlib.containers.groundwork import compile_cgroups, late_groups, layout_of, network_files
from containerlib.errors import Conflict, ContainerlibError, ContainerNotFound, ImageNotFound, KernelError
from containerlib.images import library
from containerlib.runtime import cgroups, launch
from containerlib.runtime.client import Deadline
from containerlib.runtime.launch import Launch, Peer, Started
from containerlib.runtime.rootfs import Overlay, RootFilesystem
from containerlib.shim import Status, forks
from containerlib.store import makers
from containerlib.types import ContainerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.engine import Engine

LEAVING = 30
"""
Seconds that a monitor may take to clean up.
"""

_children: dict[str, shim.Child] = {}
_owner: tuple[int, int] = (0, -1)


def owner_fd() -> int:
    """
    A pidfd of this process: monitors of what it owns watch it.

    A descriptor of the process, not a pipe: a pipe's end would be inherited
    by forked children and keep containers alive after their owner.
    """
    global _owner  # one a process, another after a fork
    if _owner[0] != os.getpid():
        _owner = (os.getpid(), os.pidfd_open(os.getpid()))
    return _owner[1]


def reap() -> None:
    """
    Collect the monitors of this process that have left.
    """
    for id_, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(id_, None)


def _disown() -> None:
    """
    In a forked child: the monitors are its parent's.
    """
    for child in _children.values():
        child.close()
    _children.clear()


os.register_at_fork(after_in_child=_disown)


def forget(id: str) -> None:
    """
    Wait for a monitor that is leaving, if it is this process's child.
    """
    child = _children.pop(id, None)
    if child is not None:
        child.wait()


def lock_state(engine: Engine, id: str, *, doing: str) -> int:
    """
    Open the state file and take its lock; close it with :func:`forks.close`.

    Raises:
        Conflict: A monitor has it: the container runs.
        ContainerNotFound: It was removed meanwhile.
    """
    deadline = Deadline(LEAVING)
    fd = forks.hold(lambda: observing.open_state(engine, id, write=True))
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # An observer's shared lock passes at once.
                if observing.is_locked(fd) and (deadline.passed or not _wait_for_holder(fd, id)):
                    message = f"container {id[:12]} cannot be {doing}: it is running"
                    raise Conflict(message, subject=id) from None
                continue
            if os.fstat(fd).st_nlink == 0:
                raise ContainerNotFound(f"no container {id[:12]}", subject=id)
            return fd
    except BaseException:
        forks.close(fd)
        raise


def _write_network_files(config: ContainerConfig, run_fd: int) -> None:
    """
    Into the run directory, which ends with the run.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    for name, data in network_files(config).items():
        fd = os.open(name, flags, 0o644, dir_fd=run_fd)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask
            os.write(fd, data)
        finally:
            os.close(fd)


def network_files_of(engine: Engine, config: ContainerConfig) -> str:
    """
    The directory of the container's network files: those of the container
    whose network it shares.
    """
    mode = config.network
    owner = mode.partition(":")[2] if mode.startswith("container:") else config.id
    return str(engine.run_root / owner)


def _wait_for_holder(fd: int, id: str) -> bool:
    """
    Whether the lock's holder will let it go, for which a moment is waited: a
    monitor that cleans up after its container, or a process that starts or
    removes the container.  A monitor whose container runs will not.
    """
    record = observing.read_record(fd, id)
    poller = select.poll()
    pidfd = -1
    try:
        if record.monitor_pid:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(record.monitor_pid)
                poller.register(pidfd, select.POLLIN)
        if pidfd >= 0 and not poller.poll(0) and record.status in (Status.RUNNING, Status.RESTARTING):
            return False
        if pidfd < 0 or poller.poll(0):
            time.sleep(0.001)
        else:
            poller.poll(20)
        return True
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def start(
    engine: Engine,
    config: ContainerConfig,
    *,
    streams: tuple[int, int, int] | None = None,
    attached: bool = False,
    size: tuple[int, int] = (0, 0),
) -> Started:
    """
    Start the container; its monitor runs when this returns.

    Raises:
        Conflict: It runs already.
        StartFailed: The first process could not be executed.
        KernelError: What a start needs of this process cannot be had, such as
            descriptors.
    """
    reap()
    try:
        return _start(engine, config, streams, attached, size)
    except OSError as error:
        if isinstance(error, ContainerlibError):
            raise
        message = f"container {config.name} could not be started: {error.filename or 'a system call'}"
        raise KernelError(
            message, errno=error.errno or errno.EIO, stage="start", subject=config.name
        ) from error


def _start(
    engine: Engine,
    config: ContainerConfig,
    streams: tuple[int, int, int] | None,
    attached: bool,
    size: tuple[int, int],
) -> Started:
    id_ = config.id
    store = engine.store
    with contextlib.ExitStack() as stack:
        state_fd = lock_state(engine, id_, doing="started")
        stack.callback(forks.close, state_fd)
        end_leftovers(engine, config, state_fd)
        directory_fd = store.containers.open(id_)
        stack.callback(os.close, directory_fd)
        with contextlib.suppress(FileExistsError):
            os.mkdir(id_, 0o700, dir_fd=store.run_fd())
        run_fd = os.open(id_, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store.run_fd())
        stack.callback(os.close, run_fd)
        _write_network_files(config, run_fd)
        peers = {key: stack.enter_context(peer(engine, other)) for key, other in _peers(config)}
        plan = compile_cgroups(engine, config)
        cgroups.prepare(plan)
        started = launch.start(
            Launch(
                config=config,
                network_files=network_files_of(engine, config),
                directory_fd=directory_fd,
                run_fd=run_fd,
                state_fd=state_fd,
                root=root_filesystem(engine, config, directory_fd),
                cgroups=plan,
                late_groups=late_groups(config, plan),
                mapping=engine.mapping,
                cache=engine.cache,
                volume_path=anonymous_volumes(engine, config),
                peers=peers,
                streams=streams,
                attached=attached,
                owner_fd=-1 if config.detach else owner_fd(),
                rows=size[0],
                columns=size[1],
            )
        )
    if started.child is not None:
        _children[id_] = started.child
    return started


def end_leftovers(engine: Engine, config: ContainerConfig, state_fd: int) -> None:
    """
    What a killed monitor may have left is ended before the next start.
    """
    record = observing.read_record(state_fd, config.id)
    if not record.monitor_pid:
        return
    boot_id = makers.boot_id()
    if record.boot_id != boot_id:
        # The monitor takes the record over as it is: left so, whatever this
        # boot does to it would be laid to the other's end.
        data = os.pread(state_fd, shim.STATE_SIZE, 0)
        os.pwrite(state_fd, shim.move_state_to_boot(data, boot_id), 0)
    observing.end_orphan(record)
    left = observing.directories(engine, config.id, config)
    if left:
        cgroups.kill(left)
        cgroups.remove(left)


def _peers(config: ContainerConfig) -> Iterator[tuple[str, str]]:
    for key in ("network", "ipc", "pid"):
        mode: str = getattr(config, key)
        if mode.startswith("container:"):
            yield key, mode.partition(":")[2]


@contextlib.contextmanager
def peer(engine: Engine, id: str) -> Iterator[Peer]:
    """
    Another container, held by a pidfd so that its pid cannot come to mean
    something else.
    """
    state = observing.observe(engine, id)
    if not state.running:
        message = f"container {id[:12]} is {state.status}, so its namespaces cannot be joined: start it first"
        raise Conflict(message, subject=id)
    try:
        pidfd = os.pidfd_open(state.pid)
    except OSError:
        raise Conflict(f"container {id[:12]} has just ended", subject=id) from None
    try:
        if observing.observe(engine, id).pid != state.pid:
            raise Conflict(f"container {id[:12]} has just ended", subject=id)
        yield Peer(pid=state.pid, pidfd=pidfd)
    finally:
        os.close(pidfd)


def root_filesystem(engine: Engine, config: ContainerConfig, directory_fd: int) -> RootFilesystem:
    """
    The container's root: its image's layers, or the host's own, below what it
    changes.
    """
    base = str(engine.store.containers.path(config.id))
    if config.image_id == "host":
        return _host_filesystem(engine, config, base, directory_fd)
    record = library.find(engine.store, config.image_id, cached=True)
    if record is None:
        message = f"container {config.name}: its image {config.image!r} ({config.image_id[7:19]}) is gone"
        raise ImageNotFound(message, subject=config.image)
    lower = tuple(str(path) for path in library.lower_directories(engine.store, record))
    _allow_remount(directory_fd, "work")
    return RootFilesystem(
        overlays=(Overlay(target="/", lower=lower, upper=f"{base}/upper", work=f"{base}/work"),)
    )


def _host_filesystem(engine: Engine, config: ContainerConfig, base: str, directory_fd: int) -> RootFilesystem:
    hide: tuple[str, ...] = ()
    with contextlib.suppress(ContainerlibError):
        hide = tuple(engine.store.containers.read(config.id, "hide").decode().split("\0"))
    layout = layout_of(engine, hide)
    overlays = []
    for overlay in layout.overlays:
        work = f"work/{overlay.key}"
        _allow_remount(directory_fd, work)
        overlays.append(
            Overlay(
                target=overlay.target,
                lower=(overlay.lower,),
                upper=f"{base}/upper/{overlay.key}",
                work=f"{base}/{work}",
            )
        )
    return RootFilesystem(
        overlays=tuple(overlays),
        skeleton=not layout.single_root,
        symlinks=layout.symlinks,
        directories=layout.directories,
        fresh=tuple((f"{base}/upper/{fresh.key}", fresh.target) for fresh in layout.fresh),
        binds=layout.binds,
        masked=layout.masked,
    )


def _allow_remount(directory_fd: int, work: str) -> None:
    """
    A volatile overlay refuses to be mounted twice, lest data lost in a power
    cut go unnoticed (overlayfs.rst, "Volatile mount"); only a container that
    removes itself has one, and it never starts again but after a failure.
    """
    with contextlib.suppress(OSError):
        os.rmdir(f"{work}/work/incompat/volatile", dir_fd=directory_fd)
        os.rmdir(f"{work}/work/incompat", dir_fd=directory_fd)


def anonymous_volumes(engine: Engine, config: ContainerConfig) -> dict[str, str]:
    """
    Where the container's anonymous volumes are, by their targets.
    """
    base = engine.store.containers.path(config.id)
    targets = [mount.target for mount in config.mounts if mount.type == "volume"]
    return {target: str(base / "volumes" / str(index)) for index, target in enumerate(targets)}
