# SPDX-License-Identifier: Apache-2.0
"""
Trying the host: containers that are set up and never run.

A trial is a plan like any other whose command does not exist.  When the
helper answers that it cannot be found, every step before it has worked; any
other answer names the step that the host refuses.  That step is left out, and
the rest is tried again.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import attrs

from containerlib import shim
from containerlib.errors import ContainerlibError
from containerlib.runtime import capabilities, cgroups, idmap, seccomp
from containerlib.runtime.cgroups import CgroupDirectory
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.idmap import IdMapping
from containerlib.runtime.launch import NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS
from containerlib.runtime.plan import Plan
from containerlib.runtime.rootfs import NOEXEC, NOSUID, add_mount
from containerlib.shim import CError, CgroupFlag, CgroupKind, ContainerFlag, MountFlag, Msg, Op, Stage
from containerlib.store import Store, makers
from containerlib.types import BlkioConfig, Resources

_COMMAND = "/containerlib-probe"  # in an empty root: never there
_NAMESPACES = NEWNS | NEWPID | NEWIPC | NEWUTS | NEWNET | NEWCGROUP
_STATE, _DIRECTORY, _RUN, _NULL, _USERNS = 5, 6, 7, 8, 9
_EXACT = MountFlag.EXACT | MountFlag.CREATE_DIR
_ROUNDS = 24  # more than there are steps

LIMITS = {
    "mem_limit": "memory.limit_in_bytes memory.max",
    "memswap_limit": "memory.memsw. memory.swap.max",
    "cpus": "cpu.cfs_ cpu.max",
    "cpu_shares": "cpu.shares cpu.weight",
    "cpuset": "cpuset.",
    "pids_limit": "pids.max",
    "blkio_config.weight": "blkio. io.",
    "device_cgroup_rules": "devices. device",
}
"""
The files whose refusal means that a limit cannot be set.
"""


@attrs.frozen(kw_only=True)
class Outcome:
    """
    What trials found: for each step that was refused the helper's error.

    *base* is why no container can be set up at all, None when one can.
    """

    refused: dict[str, CError]
    base: CError | None = None


@attrs.frozen
class Step:
    """
    One thing to try, and the answers that mean that it was refused.
    """

    name: str
    add: Callable[[Plan], None]
    stages: tuple[Stage, ...]
    words: str = ""

    def refused_by(self, error: CError) -> bool:
        """
        Whether *error* is this step's.
        """
        return error.stage in self.stages and any(
            word in error.message for word in self.words.split() or [""]
        )


def _identity() -> str:
    """
    A name for a trial, with this process's pid for who finds something left.
    """
    return f"probe-{os.getpid()}-{os.urandom(6).hex()}"


def available_limits(names: set[str]) -> Resources:
    """
    Limits that bind no probe, of those in *names*.
    """
    processor = str(min(os.sched_getaffinity(0)))
    return Resources(
        mem_limit=1 << 30 if names & {"mem_limit", "memswap_limit"} else None,
        memswap_limit=1 << 30 if "memswap_limit" in names else None,
        cpus=1.0 if "cpus" in names else None,
        cpu_shares=512 if "cpu_shares" in names else None,
        cpuset=processor if "cpuset" in names else None,
        pids_limit=100 if "pids_limit" in names else None,
        blkio=BlkioConfig(weight=100) if "blkio_config.weight" in names else None,
    )


def try_everything(store: Store, mapping: IdMapping, limits: set[str]) -> Outcome:
    """
    Try to set up containers below *store* until one succeeds.

    *limits* are those to set; nothing is left behind.
    """
    userns = idmap.userns_fd()
    refused: dict[str, CError] = {}
    with store.workspace("probe", userns_fd=userns) as fd:
        for name in ("lower", "upper", "work"):
            os.mkdir(name, 0o755, dir_fd=fd)
        base = Path(os.readlink(f"/proc/self/fd/{fd}"))
        for _ in range(_ROUNDS):
            identity = _identity()
            groups = _groups(identity, mapping, limits, refused)
            left = [step for step in steps(store, base, mapping) if step.name not in refused]
            error = run(store, identity, mapping, left, groups, directory_fd=fd)
            if error is None:
                return Outcome(refused=refused)
            blamed = blame(error, left, limits - refused.keys(), groups)
            if blamed is None or blamed in refused:
                return Outcome(refused=refused, base=error)
            refused[blamed] = error
    raise AssertionError  # each round refuses one step more


def try_user_namespace(store: Store) -> CError | None:
    """
    Try to set up a container in a user namespace, as root.
    """
    alone = IdMapping(kind="single")
    with store.workspace("probe") as fd:
        return run(store, _identity(), alone, [], cgroups.CgroupPlan(), directory_fd=fd)


def try_cgroup_kill(parent: str) -> OSError | None:
    """
    Try to end an empty group below *parent* of version 2 by one write.
    """
    path = f"{parent}/{cgroups.group_name(_identity())}"
    try:
        os.mkdir(path)
        try:
            with open(f"{path}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
        finally:
            os.rmdir(path)
    except OSError as error:
        return error
    return None


def _groups(
    identity: str, mapping: IdMapping, limits: set[str], refused: Container[str]
) -> cgroups.CgroupPlan:
    """
    The control groups of a trial, one of version 2 among them.

    Controllers are not enabled, and this process is not moved, for a trial:
    where that is still to be done, limits are left out.
    """
    if "cgroups" in refused:
        return cgroups.CgroupPlan()
    limits = {name for name in limits if name not in refused}
    rootless = mapping.userns
    devices = "device_cgroup_rules" in limits
    plan = cgroups.compile(
        available_limits(limits), id=identity, rootless=rootless, privileged=not devices and not rootless
    )
    if not all(_is_enabled(path, required) for path, required, _ in plan.enable):
        plan = cgroups.compile(Resources(), id=identity, rootless=rootless, privileged=True)
    unified = cgroups.detect().unified
    if unified is None or not unified.writable:
        return plan
    if "clone_into_cgroup" in refused:
        # Writes name directories by their position: without version 2, none are tried.
        old = tuple(directory for directory in plan.directories if directory.version == 1)
        return plan if old == plan.directories else cgroups.CgroupPlan(directories=old)
    if any(directory.version == 2 for directory in plan.directories):
        return plan
    extra = CgroupDirectory(2, CgroupKind.UNIFIED, f"{unified.parent}/{cgroups.group_name(identity)}")
    return attrs.evolve(plan, directories=(*plan.directories, extra))


def _is_enabled(path: str, controllers: tuple[str, ...]) -> bool:
    try:
        with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
            return set(controllers) <= set(file.read().split())
    except OSError:
        return False


def blame(error: CError, tried: list[Step], limits: set[str], groups: cgroups.CgroupPlan) -> str | None:
    """
    The step that the host refused, None when it is one that all need.
    """
    unified = any(directory.version == 2 for directory in groups.directories)
    if error.stage is Stage.SPAWN and error.message.startswith("clone3") and unified:
        return "clone_into_cgroup"
    if error.stage is Stage.CGROUP:
        name = error.message.partition("=")[0].rpartition("/")[2]
        for limit in LIMITS.keys() & limits:
            if any(name.startswith(word) for word in LIMITS[limit].split()):
                return limit
        return "device_cgroup_rules" if "device program" in error.message else "cgroups"
    return next((step.name for step in tried if step.refused_by(error)), None)


def steps(store: Store, base: Path, mapping: IdMapping) -> Iterator[Step]:
    """
    What is tried, in the order of a plan.
    """
    userns = mapping.userns or idmap.in_userns()
    kind, soft, hard = finite_limit()
    yield Step("raise_ulimits", lambda plan: plan.add(Op.RLIMIT, kind, soft, hard + 1), (Stage.RLIMIT,))
    flags = MountFlag.USERXATTR if userns else MountFlag(0)
    strings = (str(base / "upper"), str(base / "work"), str(base / "lower"))
    yield Step(
        "overlay",
        lambda plan: plan.add(Op.ROOT_OVERLAY, flags, strings=strings),
        (Stage.ROOTFS,),
        "overlay layer attach",
    )
    yield Step("proc", _add_proc, (Stage.MOUNT,), "/proc")
    yield Step("terminal", _add_terminal, (Stage.MOUNT, Stage.CONSOLE), "/dev terminal console ptmx pts")
    key = "net/ipv4/ip_unprivileged_port_start"
    yield Step("net_sysctls", lambda plan: plan.add(Op.SYSCTL, strings=(key, "0")), (Stage.SYSCTL,))
    yield Step("mount_setattr", lambda plan: plan.add(Op.ROOT_READONLY), (Stage.ROOTFS,), "read-only")
    caps = capabilities.effective_set(available=capabilities.obtainable(user_namespace=mapping.userns))
    program = seccomp.cached_filter(store.root / "cache", None, caps)
    yield Step(
        "seccomp",
        lambda plan: plan.add(Op.SECCOMP, seccomp.filter_flags(None), strings=(program,)),
        (Stage.SECCOMP,),
    )


def _add_proc(plan: Plan) -> None:
    add_mount(plan, "proc", "/proc", NOSUID | NOEXEC, flags=_EXACT)


def _add_terminal(plan: Plan) -> None:
    add_mount(plan, "tmpfs", "/dev", NOSUID, flags=_EXACT, mode="755", size="64k")
    add_mount(
        plan,
        "devpts",
        "/dev/pts",
        NOSUID | NOEXEC,
        flags=_EXACT,
        newinstance="",
        ptmxmode="0666",
        mode="0620",
    )
    plan.add(Op.CONSOLE, 24, 80)


def finite_limit() -> tuple[int, int, int]:
    """
    A limit that is not infinite, so that it could be raised.
    """
    for kind in (resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_NPROC):
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            return kind, soft, hard
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    return resource.RLIMIT_CORE, soft, -2  # minus one is infinity: there is nothing to raise


def run(
    store: Store,
    identity: str,
    mapping: IdMapping,
    tried: list[Step],
    groups: cgroups.CgroupPlan,
    *,
    directory_fd: int,
) -> CError | None:
    """
    Set up one container; what refused it, or None.
    """
    fds = [-1] * 10
    with contextlib.ExitStack() as stack:
        state = os.memfd_create("state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        os.write(state, shim.encode_state(boot_id=makers.boot_id()))
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        os.mkdir(identity, 0o700, dir_fd=store.run_fd())
        stack.callback(_remove_directory, store.run_fd(), identity)
        run = os.open(identity, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store.run_fd())
        stack.callback(os.close, run)
        fds[_STATE], fds[_DIRECTORY], fds[_RUN], fds[_NULL] = state, directory_fd, run, null
        if mapping.kind == "ranges":
            fds[_USERNS] = idmap.userns_fd() or -1
        plan_fd = _plan(identity, mapping, tried, groups).memfd()
        stack.callback(os.close, plan_fd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            status = MonitorClient(ours.detach(), subject="probe")
            stack.callback(status.close)
            fds[3], fds[4] = plan_fd, theirs.fileno()
            child = shim.spawn(["containerlib-init", "run"], fds=fds)
        error = answer(status)
        child.wait()
    return None if error.stage is Stage.EXEC else error


def answer(status: MonitorClient) -> CError:
    """
    What the helper says until it leaves.
    """
    found: CError | None = None
    with contextlib.suppress(ContainerlibError):
        while not status.ended:
            message = status.receive(30)
            if message is not None and message.type == Msg.ERROR and found is None:
                found = shim.decode_error(message.payload)
    return found or CError(code=0, stage=Stage.NONE, message="the helper died while it set a container up")


def _plan(identity: str, mapping: IdMapping, tried: list[Step], groups: cgroups.CgroupPlan) -> Plan:
    names = {step.name for step in tried}
    plan = Plan()
    flags = ContainerFlag.CAPTURE | (ContainerFlag.TTY if "terminal" in names else ContainerFlag(0))
    plan.add(Op.CONTAINER, flags, 15, 0, strings=(identity,))
    plan.add(Op.FDS, _STATE, _DIRECTORY, _RUN, -1, _NULL, _NULL, _NULL, -1)
    for directory in groups.directories:
        plan.add(Op.CGROUP_DIR, directory.version, directory.kind, strings=(directory.path,))
    for index, file, value, optional in groups.writes:
        plan.add(Op.CGROUP_WRITE, index, CgroupFlag.OPTIONAL if optional else 0, strings=(file, value))
    if groups.bpf is not None:
        plan.add(Op.CGROUP_BPF, groups.bpf_index, strings=(groups.bpf,))
    plan.add(Op.NAMESPACES, _NAMESPACES)
    if mapping.userns:
        kind, fd, uid, gid = idmap.plan_operands(mapping, _USERNS)
        plan.add(Op.USERNS, kind, fd, uid, gid)
    if "overlay" not in names:
        plan.add(Op.ROOT_TMPFS, strings=("mode=0755,size=64k",))
    for step in tried:
        if step.name == "mount_setattr":
            plan.add(Op.LOOPBACK)
        if step.name == "seccomp":
            break
        step.add(plan)
    plan.add(Op.PIVOT)
    plan.add(Op.WORKDIR, 0, strings=("/",))
    plan.add(Op.USER, strings=("0:0",))
    for step in tried:
        if step.name == "seccomp":
            step.add(plan)
    plan.add(Op.ENVIRON)
    plan.add(Op.EXEC, strings=(_COMMAND,))
    return plan


def _remove_directory(parent: int, name: str) -> None:
    """
    The helper has done it unless it died.
    """
    with contextlib.suppress(OSError):
        os.unlink(f"{name}/attach.sock", dir_fd=parent)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)
