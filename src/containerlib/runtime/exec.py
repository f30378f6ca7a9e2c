# SPDX-License-Identifier: Apache-2.0
"""
Processes in a running container, and sockets in its network.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from containerlib import shim
from containerlib.errors import Conflict, ContainerlibError, KernelError
from containerlib.runtime import launch
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.failures import start_error
from containerlib.runtime.plan import Plan
from containerlib.runtime.process import Process
from containerlib.shim import ContainerFlag, Msg, Op, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.runtime.cgroups import CgroupDirectory
    from containerlib.runtime.idmap import IdMapping
    from containerlib.types import ContainerConfig

_TARGET, _IN, _OUT, _ERR = 5, 6, 7, 8


@attrs.frozen(kw_only=True)
class Target:
    """
    A running container: its configuration, first process, groups, id mapping.
    """

    config: ContainerConfig
    pid: int
    pidfd: int
    directories: Sequence[CgroupDirectory]
    mapping: IdMapping
    cache: Path


def start_process(
    target: Target,
    argv: tuple[str, ...],
    *,
    environment: Mapping[str, str],
    user: str,
    working_dir: str,
    tty: bool = False,
    size: tuple[int, int] = (0, 0),
    privileged: bool = False,
    stdin: bool = True,
    owned: bool = True,
    encoding: str | None = "utf-8",
) -> Process:
    """
    Start *argv* in the container; its streams are pipes, or one terminal.

    With *stdin* false it reads /dev/null.  A process that is not *owned*
    lives on when the caller is gone.
    """
    config = target.config
    if privileged:
        config = attrs.evolve(config, privileged=True, cap_add=(), cap_drop=())
    caps = launch.container_capabilities(config, target.mapping)
    plan = Plan()
    flags = (ContainerFlag.OWNED if owned else 0) | (ContainerFlag.TTY if tty else 0)
    plan.add(Op.CONTAINER, flags, 0, 0, strings=(config.id,))
    mask = launch.joined_namespaces(config, userns=target.mapping.userns)
    plan.add(Op.TARGET, _TARGET, mask)
    for directory in target.directories:
        plan.add(Op.CGROUP_DIR, directory.version, directory.kind, strings=(directory.path,))
    launch.add_limits(plan, config)
    if tty:
        plan.add(Op.CONSOLE, *size)

    pipes: list[tuple[int, int]] = []
    passed = [-1, -1, -1]
    kept: list[int | None] = [None, None, None]
    try:
        for i in range(0 if stdin else 1, 3):
            if tty:
                break
            reader, writer = os.pipe2(os.O_CLOEXEC)
            pipes.append((reader, writer))
            passed[i], kept[i] = (reader, writer) if i == 0 else (writer, reader)
        numbers = [n if fd >= 0 else -1 for n, fd in zip((_IN, _OUT, _ERR), passed, strict=True)]
        plan.add(Op.FDS, -1, -1, -1, -1, *numbers, -1)
        launch.add_process(
            plan,
            config,
            caps,
            launch.seccomp_filter(config, caps, target.cache),
            argv=argv,
            environment=environment,
            user=user,
            groups=config.group_add,
            working_dir=working_dir,
        )
        process = _spawn(target, plan, passed, kept, argv, encoding=encoding, tty=tty)
    except BaseException:
        for fd in kept:
            if fd is not None:
                os.close(fd)
        raise
    finally:
        for fd in passed:
            if fd >= 0:
                os.close(fd)
    return process


def _spawn(
    target: Target,
    plan: Plan,
    passed: list[int],
    kept: list[int | None],
    argv: tuple[str, ...],
    *,
    encoding: str | None,
    tty: bool,
) -> Process:
    config = target.config
    plan_fd = plan.memfd()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fds = [-1, -1, -1, plan_fd, theirs.fileno(), target.pidfd, *passed]
            child = shim.spawn(["containerlib-init", "exec"], fds=fds)
            status = MonitorClient(ours.detach(), subject=config.name)
    finally:
        os.close(plan_fd)
    terminal = None
    try:
        message = status.receive()
        if tty and message is not None and message.type == Msg.TERMINAL:
            terminal = message.fds[0]
            message = status.receive()
        if message is None or message.type != Msg.STARTED:
            raise _failure(target, message)
    except BaseException:
        if terminal is not None:
            os.close(terminal)
        # After an interrupt the helper still starts what nobody wants any more.
        with contextlib.suppress(OSError):
            status.send(Msg.KILL, signal.SIGKILL)
        status.close()
        child.wait()
        raise
    return Process(
        argv,
        status,
        pid=message.arg,
        stdin=kept[0],
        stdout=kept[1],
        stderr=kept[2],
        terminal=terminal,
        helper=child,
        encoding=encoding,
    )


def _failure(target: Target, message: object) -> ContainerlibError:
    config = target.config
    type_ = getattr(message, "type", None)
    if type_ != Msg.ERROR:
        return Conflict(
            f"container {config.name} ended while a process was started in it", subject=config.name
        )
    error = shim.decode_error(message.payload)  # type: ignore[attr-defined]  # an ERROR has one
    gone = error.stage is Stage.CGROUP and error.code in (errno.ENOENT, errno.ENODEV)
    if gone or error.message.startswith("join the container's namespaces"):
        return Conflict(f"container {config.name} is not running", subject=config.name)
    return start_error(error, subject=config.name, image=config.image, path=config.environment.get("PATH"))


def open_socket(target: Target, address: str, port: int, *, timeout: float = 10.0) -> socket.socket:
    """
    A TCP socket connected to *address* and *port* as seen in the container.

    Raises:
        KernelError: The connection was refused, or could not be made.
        TimeoutError: Not within *timeout* seconds.
    """
    config = target.config
    mask = 0 if config.network == "host" else launch.NEWNET
    if target.mapping.userns and mask:
        mask |= launch.NEWUSER
    if not mask:
        return socket.create_connection((address, port), timeout=timeout)
    family, kind = ("6", socket.AF_INET6) if ":" in address else ("4", socket.AF_INET)
    digits = socket.inet_pton(kind, address).hex()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = shim.spawn(
                ["containerlib-init", "connect", "5", hex(mask), family, digits, str(port)],
                fds=[-1, -1, -1, -1, theirs.fileno(), target.pidfd],
            )
        ours.settimeout(timeout)
        try:
            data, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        except TimeoutError:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            raise
        finally:
            child.wait()
    if fds:
        return socket.socket(fileno=fds[0])
    if len(data) > 8:
        error = shim.decode_error(data[8:])
        raise KernelError(error.message, errno=error.code, stage="connect", path=f"{address}:{port}")
    raise Conflict(f"container {config.name} is not running", subject=config.name)
