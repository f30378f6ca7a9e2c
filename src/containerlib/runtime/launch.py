# SPDX-License-Identifier: Apache-2.0
"""
From a configuration to a running monitor: compile the plan, start the helper,
hear how it went.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from containerlib import shim
from containerlib.errors import StartFailed
from containerlib.runtime import capabilities, idmap, rootfs, seccomp
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.failures import start_error
from containerlib.runtime.plan import Plan
from containerlib.shim import CgroupFlag, CgroupKind, ContainerFlag, Msg, Op, Restart
from containerlib.types import sysctl_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.runtime.cgroups import CgroupPlan
    from containerlib.runtime.idmap import IdMapping
    from containerlib.runtime.rootfs import RootFilesystem
    from containerlib.types import ContainerConfig

# linux/sched.h
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

# The helper's descriptors; 3 and 4 are fixed in C.
_STATE, _DIRECTORY, _RUN, _OWNER, _IN, _OUT, _ERR, _USERNS, _FIRST_FREE = 5, 6, 7, 8, 9, 10, 11, 12, 13

_RESTART = {
    "no": Restart.NO,
    "on-failure": Restart.ON_FAILURE,
    "always": Restart.ALWAYS,
    "unless-stopped": Restart.UNLESS_STOPPED,
}


@attrs.frozen(kw_only=True)
class Peer:
    """
    Another running container whose namespaces are joined.
    """

    pid: int
    pidfd: int


@attrs.frozen(kw_only=True)
class Launch:
    """
    All that a start needs.

    *state_fd* is the open state file, locked by the caller; the lock passes
    to the monitor.  *streams* are descriptors for stdin, stdout and stderr of
    a captured run, None for a logged one.
    """

    config: ContainerConfig
    network_files: str
    directory_fd: int
    run_fd: int
    state_fd: int
    root: RootFilesystem
    cgroups: CgroupPlan
    late_groups: tuple[str, ...] = ()
    mapping: IdMapping
    cache: Path
    volume_path: Mapping[str, str] = attrs.field(factory=dict)
    peers: Mapping[str, Peer] = attrs.field(factory=dict)
    streams: tuple[int, int, int] | None = None
    attached: bool = False
    owner_fd: int = -1
    rows: int = 0
    columns: int = 0


@attrs.define(eq=False)
class Started:
    """
    A monitor that runs: its status connection, the container's first pid, and
    the helper as our child if it stayed one.
    """

    status: MonitorClient
    pid: int
    child: shim.Child | None


def container_capabilities(config: ContainerConfig, mapping: IdMapping) -> frozenset[str]:
    """
    What the container's root may do.
    """
    return capabilities.effective_set(
        cap_add=config.cap_add,
        cap_drop=config.cap_drop,
        privileged=config.privileged,
        available=capabilities.obtainable(user_namespace=mapping.userns),
    )


def seccomp_filter(config: ContainerConfig, caps: frozenset[str], cache: Path) -> tuple[bytes, int] | None:
    """
    The filter's program and flags; None for an unconfined container.
    """
    wanted = config.security.seccomp
    if wanted == "unconfined" or (config.privileged and wanted is None):
        return None
    profile = None if wanted in (None, "builtin") else seccomp.load_profile(wanted)
    return seccomp.cached_filter(cache, profile, caps), seccomp.filter_flags(profile)


def namespace_flags(config: ContainerConfig) -> int:
    """
    The namespaces that are made anew.
    """
    flags = NEWNS
    if config.pid == "private":
        flags |= NEWPID
    if config.ipc in ("private", "shareable", "none"):
        flags |= NEWIPC
    if config.uts == "private":
        flags |= NEWUTS
    if config.network == "none":
        flags |= NEWNET
    if config.cgroup != "host":
        flags |= NEWCGROUP
    return flags


def joined_namespaces(config: ContainerConfig, *, userns: bool) -> int:
    """
    What a process run in the container joins: all that is not the host's.
    """
    flags = namespace_flags(config)
    if config.pid != "host":
        flags |= NEWPID
    if config.ipc != "host":
        flags |= NEWIPC
    if config.network != "host":
        flags |= NEWNET
    return flags | (NEWUSER if userns else 0)


def start(launch: Launch) -> Started:
    """
    Start the container and return when its first process has been executed.

    Raises:
        StartFailed: One of its classes says which step failed, on what.
    """
    fds = [
        -1,
        -1,
        -1,
        -1,
        -1,
        launch.state_fd,
        launch.directory_fd,
        launch.run_fd,
        launch.owner_fd,
        *(launch.streams or (-1, -1, -1)),
        -1,
    ]
    opened: list[int] = []
    try:
        plan = _compile(launch, fds, opened)
        plan_fd = plan.memfd()
        opened.append(plan_fd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fds[3], fds[4] = plan_fd, theirs.fileno()
            child = shim.spawn(["containerlib-init", "run"], fds=fds)
            status = MonitorClient(ours.detach(), subject=launch.config.name)
    finally:
        for fd in opened:
            os.close(fd)
    return _hear(launch, child, status)


def _hear(launch: Launch, child: shim.Child, status: MonitorClient) -> Started:
    """
    Wait for the helper's word on how the start went.
    """
    config = launch.config
    try:
        message = status.receive()
        if message is not None and message.type == Msg.STARTED:
            return Started(status, message.arg, None if config.detach else child)
        if message is None or message.type != Msg.ERROR:
            text = f"container {config.name}: its monitor was killed while it started; start it again"
            raise StartFailed(text, subject=config.name, stage="monitor")
        error = shim.decode_error(message.payload)
        while not status.ended:  # it cleans up first
            status.receive()
        raise start_error(error, subject=config.name, image=config.image, path=config.environment.get("PATH"))
    except BaseException:
        # After an interrupt the monitor still starts what nobody wants any more.
        status.give_up()
        child.wait()
        raise
    finally:
        if config.detach:
            child.wait()


def _compile(launch: Launch, fds: list[int], opened: list[int]) -> Plan:
    config, mapping = launch.config, launch.mapping
    plan = Plan()
    _add_monitor(plan, launch)
    joined_userns = _add_namespaces(plan, launch, fds, opened)
    if mapping.userns and not joined_userns:
        if mapping.kind == "ranges":
            fds[_USERNS] = idmap.userns_fd() or -1
        plan.add(Op.USERNS, *idmap.plan_operands(mapping, _USERNS))
    add_limits(plan, config)

    userns = mapping.userns or idmap.in_userns()
    rootfs.add_root(plan, launch.root, volatile=config.auto_remove, userns=userns)
    single_id = mapping.kind == "single" or (not mapping.userns and idmap.has_one_group())
    shm = -1
    if config.ipc.startswith("container:"):
        shm = _pass(fds, launch.peers["ipc"].pidfd)
    rootfs.add_standard_mounts(
        plan, config, launch.cgroups, single_id=single_id, userns=userns, shm_pidfd=shm
    )
    rootfs.add_devices(plan, config, userns=userns)
    rootfs.add_network_files(plan, launch.network_files, config.mounts, read_only=config.read_only)
    rootfs.add_volumes(plan, config.mounts, dict(launch.volume_path), subject=config.name)
    if config.tty:
        plan.add(Op.CONSOLE, launch.rows, launch.columns)
    _add_kernel_settings(plan, config, userns=userns)
    rootfs.add_masks(plan, config, launch.root.masked)
    if config.read_only:
        rootfs.add_read_only(plan, launch.root, config.mounts)
    plan.add(Op.PIVOT)
    caps = container_capabilities(config, mapping)
    add_process(
        plan,
        config,
        caps,
        seccomp_filter(config, caps, launch.cache),
        argv=config.args,
        environment=config.environment,
        user=config.user,
        groups=config.group_add,
        working_dir=config.working_dir,
    )
    return plan


def _pass(fds: list[int], fd: int) -> int:
    """
    Hand *fd* to the helper; its number there.
    """
    fds.append(fd)
    return len(fds) - 1


def _add_monitor(plan: Plan, launch: Launch) -> None:
    config = launch.config
    flags = ContainerFlag(0)
    for given, flag in (
        (config.tty, ContainerFlag.TTY),
        (config.stdin_open, ContainerFlag.STDIN_OPEN),
        (not config.detach, ContainerFlag.OWNED),
        (config.auto_remove, ContainerFlag.AUTO_REMOVE),
        (config.init, ContainerFlag.INIT),
        (launch.streams is not None, ContainerFlag.CAPTURE),
        (launch.attached, ContainerFlag.ATTACHED),
        (config.pid != "private", ContainerFlag.KILL_ALL),
        (config.detach, ContainerFlag.DAEMONIZE),
    ):
        if given:
            flags |= flag
    grace = round(config.stop_grace_period * 1000)
    plan.add(Op.CONTAINER, flags, config.stop_signal, grace, strings=(config.id,))
    owner = _OWNER if launch.owner_fd >= 0 else -1
    streams = (_IN, _OUT, _ERR) if launch.streams is not None else (-1, -1, -1)
    streams_given = launch.streams or (-1, -1, -1)
    numbers = [number if fd >= 0 else -1 for number, fd in zip(streams, streams_given, strict=True)]
    plan.add(Op.FDS, _STATE, _DIRECTORY, _RUN, owner, *numbers, -1)
    plan.add(Op.LOG, config.logging.max_size, config.logging.max_files)
    for directory in launch.cgroups.directories:
        plan.add(Op.CGROUP_DIR, directory.version, directory.kind, strings=(directory.path,))
    for path in launch.late_groups:
        plan.add(Op.CGROUP_DIR, 1, CgroupKind.LATE, strings=(path,))
    for index, file, value, optional in launch.cgroups.writes:
        plan.add(Op.CGROUP_WRITE, index, CgroupFlag.OPTIONAL if optional else 0, strings=(file, value))
    if launch.cgroups.bpf is not None:
        plan.add(Op.CGROUP_BPF, launch.cgroups.bpf_index, strings=(launch.cgroups.bpf,))
    plan.add(Op.RESTART, _RESTART[config.restart.name], config.restart.maximum)
    check = config.healthcheck
    if check is not None and check.argv:
        times = (check.interval, check.timeout, check.start_period, check.start_interval)
        plan.add(Op.HEALTH, *(round(seconds * 1000) for seconds in times), check.retries, strings=check.argv)


def _add_namespaces(plan: Plan, launch: Launch, fds: list[int], opened: list[int]) -> bool:
    """
    What is made and what is joined; whether the user namespace is another's.
    """
    config = launch.config
    plan.add(Op.NAMESPACES, namespace_flags(config))
    userns_of: Peer | None = None
    for kind, mode, flag in (
        ("net", config.network, NEWNET),
        ("ipc", config.ipc, NEWIPC),
        ("pid", config.pid, NEWPID),
    ):
        if not mode.startswith("container:"):
            continue
        peer = launch.peers["network" if kind == "net" else kind]
        fd = os.open(f"/proc/{peer.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        opened.append(fd)
        plan.add(Op.JOIN, flag, _pass(fds, fd))
        userns_of = userns_of or peer
    if userns_of is None or not launch.mapping.userns:
        return False
    # A namespace can be joined only with privilege over the user namespace
    # that owns it.
    fd = os.open(f"/proc/{userns_of.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    opened.append(fd)
    plan.add(Op.USERNS, shim.UsernsKind.JOIN, _pass(fds, fd), 0, 0)
    return True


def add_limits(plan: Plan, config: ContainerConfig) -> None:
    """
    The resource limits and the out-of-memory score of every process in the
    container.
    """
    for limit in config.ulimits:
        hard = limit.soft if limit.hard is None else limit.hard
        plan.add(Op.RLIMIT, limit.resource, limit.soft, hard)
    if config.oom_score_adj:
        plan.add(Op.OOM_SCORE_ADJ, config.oom_score_adj)


def _add_kernel_settings(plan: Plan, config: ContainerConfig, *, userns: bool) -> None:
    sysctls = dict(config.sysctls)
    if config.network == "none":
        plan.add(Op.LOOPBACK)
    if not config.network.startswith("container:") and config.network != "host" and not config.privileged:
        # As Docker since 20.10: ports below 1024 and ping need no privilege.
        sysctls.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
        if not userns:
            sysctls.setdefault("net.ipv4.ping_group_range", "0 2147483647")
    for key, value in sysctls.items():
        plan.add(Op.SYSCTL, strings=(sysctl_path(key), value))
    if config.uts == "private":
        plan.add(Op.HOSTNAME, strings=(config.hostname,))
        if config.domainname:
            plan.add(Op.DOMAINNAME, strings=(config.domainname,))


def add_process(
    plan: Plan,
    config: ContainerConfig,
    caps: frozenset[str],
    filter_: tuple[bytes, int] | None,
    *,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    user: str,
    groups: tuple[str, ...],
    working_dir: str,
) -> None:
    """
    Who the process is, what it may do, what it executes.
    """
    mask = capabilities.mask(caps)
    plan.add(Op.KEYRING, strings=(f"_ses.{config.id[:16]}",))
    no_new_privileges = config.security.no_new_privileges
    plan.add(Op.WORKDIR, shim.WorkdirFlag.CREATE, strings=(working_dir or "/",))
    plan.add(Op.USER, strings=(user, *groups))
    if filter_ is not None and not no_new_privileges:
        # Loading without no_new_privs needs CAP_SYS_ADMIN, which goes next.
        plan.add(Op.SECCOMP, filter_[1], strings=(filter_[0],))
    plan.add(Op.CAPS, mask, mask, mask, 0)
    if no_new_privileges:
        plan.add(Op.NO_NEW_PRIVS)
        if filter_ is not None:
            plan.add(Op.SECCOMP, filter_[1], strings=(filter_[0],))
    plan.add_private(Op.ENVIRON, strings=tuple(f"{key}={value}" for key, value in environment.items()))
    plan.add_private(Op.EXEC, strings=argv)
