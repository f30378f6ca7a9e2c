# SPDX-License-Identifier: Apache-2.0
"""
What the monitor makes for one container: directories, values, the device program.

:func:`compile` only thinks.  :func:`prepare` makes what outlives the
container: a parent that was named, and controllers that version 2 must be
told to offer below it.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Sequence

import attrs

from containerlib.errors import InvalidOption, KernelError, NotSupported
from containerlib.runtime.cgroups.devices import (
    DEFAULT_RULES,
    DeviceRule,
    compile_program,
    device_rules,
    merge,
)
from containerlib.runtime.cgroups.layout import CgroupLayout, Hierarchy, descends, detect, read_words
from containerlib.runtime.cgroups.limits import asked, check_id, limits
from containerlib.shim import CgroupKind
from containerlib.types import Device, Resources

PREFIX = "containerlib-"

_ALWAYS = ("memory", "pids", "cpu", "cpuacct", "blkio", "freezer")
"""
The controllers that each container gets a group of, limited or not: to be
counted, paused, and limited later.

Measured on version 1 (kernel 6.18): making, entering and removing one
hierarchy's group costs 20 to 40 µs, all of these 190 µs.  ``cpuset`` costs
400 µs when the machine was idle before and serves nothing unless asked for.
"""

_UNIFIED_ALWAYS = ("cpu", "io", "memory", "pids")

_CALLER = "containerlib-caller"


@attrs.frozen
class CgroupDirectory:
    """
    One group of a container.
    """

    version: int
    kind: CgroupKind
    path: str
    controllers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class CgroupPlan:
    """
    The groups of a container that is about to start.

    *writes* are (index of the directory, file, value, optional), in order;
    *bpf* is a device program for the directory *bpf_index*.  *parents* and
    *enable* are for :func:`prepare`: directories that must be there before,
    and (group, required, wanted) controllers of version 2.
    """

    directories: tuple[CgroupDirectory, ...] = ()
    writes: tuple[tuple[int, str, str, bool], ...] = ()
    bpf: bytes | None = None
    bpf_index: int = -1
    parents: tuple[str, ...] = ()
    enable: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()


@functools.lru_cache(maxsize=64)
def _program(rules: tuple[DeviceRule, ...]) -> bytes:
    return compile_program(rules)


@functools.lru_cache(maxsize=64)
def _device_writes(rules: tuple[DeviceRule, ...]) -> tuple[tuple[str, str, bool], ...]:
    """
    Version 1's list: nothing, then each rule.

    Inside a container whose own list is shorter the defaults fail to be
    allowed, which only takes from ours.
    """
    defaults = set(map(str, DEFAULT_RULES))
    allowed = [("devices.allow", str(rule), str(rule) in defaults) for rule in merge(rules)]
    return (("devices.deny", "a", False), *allowed)


def group_name(identity: str) -> str:
    """
    The name of a container's group in every hierarchy.
    """
    check_id(identity)
    return PREFIX + identity


def parent_of(hierarchy: Hierarchy, parent: str | None) -> str:
    """
    The directory below which a container's group of *hierarchy* goes.
    """
    if not parent or parent == "/":
        return hierarchy.parent
    parts = [part for part in parent.split("/") if part]
    if any(part in (".", "..") for part in parts) or "\0" in parent:
        raise InvalidOption(
            f"cgroup_parent: {parent!r} must be a path below the root, without '..'", subject="cgroup_parent"
        )
    return "/".join((hierarchy.parent, *parts))


def _kind(hierarchy: Hierarchy) -> CgroupKind:
    if hierarchy.version == 2:
        return CgroupKind.UNIFIED
    if "memory" in hierarchy.controllers:
        return CgroupKind.MEMORY
    if "freezer" in hierarchy.controllers:
        return CgroupKind.FREEZER
    return CgroupKind.OTHER


def compile(
    resources: Resources,
    *,
    id: str,
    layout: CgroupLayout | None = None,
    devices: Sequence[Device] = (),
    rules: Sequence[str] = (),
    parent: str | None = None,
    privileged: bool = False,
    rootless: bool = False,
) -> CgroupPlan:
    """
    The groups for a container of *id* with *resources*.

    *devices* and *rules* (``device_cgroup_rules``) come on top of the default
    devices; a *privileged* container may use any.  A *rootless* one cannot
    make nodes and has those of the host that its user may open, so it needs
    no list, and none could be set.

    Raises:
        NotSupported:
            If the host cannot enforce a limit that was asked for.
    """
    layout = detect() if layout is None else layout
    name = group_name(id)
    needs = asked(resources)
    wanted_limits = limits(resources, layout) if needs else []
    filter_devices = not privileged and not rootless
    if (devices or rules) and not privileged:
        _check_devices(layout, devices, rules, rootless=rootless)

    wanted = {*_ALWAYS, *needs}
    if filter_devices:
        wanted.add("devices")
    chosen: list[Hierarchy] = []
    for controller in (*_ALWAYS, "devices", "cpuset"):
        hierarchy = layout.of(controller) if controller in wanted else None
        if hierarchy is None or not hierarchy.writable or hierarchy in chosen:
            continue
        if hierarchy.version == 2 and layout.kind == "hybrid" and controller in ("cpuacct", "freezer"):
            # What version 1 lacks here, version 2 could do; a group in one
            # more hierarchy is not worth it for these alone.
            continue
        chosen.append(hierarchy)

    parents: list[str] = []
    enable: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    directories: list[CgroupDirectory] = []
    index: dict[str, int] = {}
    for position, hierarchy in enumerate(chosen):
        above = parent_of(hierarchy, parent)
        directories.append(
            CgroupDirectory(hierarchy.version, _kind(hierarchy), f"{above}/{name}", hierarchy.controllers)
        )
        for controller in wanted:
            if layout.of(controller) is hierarchy:
                index[controller] = position
        steps = _steps(hierarchy.parent, above)
        parents += steps[1:]
        if hierarchy.version == 2:
            required = tuple(
                "io" if need == "blkio" else need for need in needs if layout.of(need) is hierarchy
            )
            offered = tuple(c for c in _UNIFIED_ALWAYS if c in hierarchy.controllers and c not in required)
            if required or (offered and not hierarchy.blocked):
                enable += [(step, required, offered) for step in steps]

    writes = [(index[limit.controller], limit.file, limit.value, limit.optional) for limit in wanted_limits]
    bpf: bytes | None = None
    bpf_index = -1
    if filter_devices and "devices" in index:
        allowed = DEFAULT_RULES
        if devices or rules:
            allowed = (*DEFAULT_RULES, *device_rules(devices), *map(DeviceRule.parse, rules))
        position = index["devices"]
        if directories[position].version == 1:
            writes += [(position, *write) for write in _device_writes(allowed)]
        else:
            bpf, bpf_index = _program(allowed), position
    return CgroupPlan(
        directories=tuple(directories),
        writes=tuple(writes),
        bpf=bpf,
        bpf_index=bpf_index,
        parents=tuple(parents),
        enable=tuple(enable),
    )


def _check_devices(
    layout: CgroupLayout, devices: Sequence[Device], rules: Sequence[str], *, rootless: bool
) -> None:
    """
    Refuse what only a device list can enforce where there is none.
    """
    hierarchy = layout.of("devices")
    if not rootless and hierarchy is not None and hierarchy.writable:
        return
    remedy = "run as root" if rootless else "mount cgroup v2, or the devices hierarchy of version 1"
    if rules:
        raise NotSupported(
            f"device_cgroup_rules: no control group filters this container's devices: {remedy}",
            subject="device_cgroup_rules",
        )
    for device in devices:
        if not {"r", "w"} <= set(device.permissions):
            raise NotSupported(
                f"devices: {device.source}: permissions {device.permissions!r} cannot be enforced: "
                f"no control group filters this container's devices: {remedy}, or allow 'rwm'",
                subject="devices",
            )


def _steps(top: str, bottom: str) -> list[str]:
    """
    The directories from *top* down to *bottom*, both included.
    """
    steps = [top]
    for part in bottom[len(top) :].split("/"):
        if part:
            steps.append(f"{steps[-1]}/{part}")
    return steps


def prepare(plan: CgroupPlan) -> None:
    """
    Make what *plan* relies on and what stays after its container.

    Costs nothing on version 1 without a named parent, and one read on version
    2: other programs, systemd for one, may take controllers away again.
    """
    for path in plan.parents:
        try:
            os.mkdir(path)
        except FileExistsError:
            pass
        except OSError as error:
            raise _failed("make the group", path, error) from None
        _inherit_cpuset(path)
    for path, required, wanted in plan.enable:
        _enable(path, required, wanted)


def _inherit_cpuset(path: str) -> None:
    """
    Fill a cpuset of version 1: no process may enter an empty one.
    """
    if not os.path.exists(f"{path}/cpuset.effective_cpus"):
        return
    for name in ("cpus", "mems"):
        if not read_words(f"{path}/cpuset.{name}"):
            write(f"{path}/cpuset.{name}", " ".join(read_words(f"{os.path.dirname(path)}/cpuset.{name}")))


def _enable(path: str, required: Sequence[str], wanted: Sequence[str]) -> None:
    """
    Offer controllers to the groups below *path*.
    """
    have = read_words(f"{path}/cgroup.subtree_control")
    missing = [name for name in required if name not in have]
    extra = [name for name in wanted if name not in have]
    if not missing and not extra:
        return
    moved = False
    if not have and os.path.exists(f"{path}/cgroup.type"):
        moved = bool(missing) and step_aside(path)
        pids = read_words(f"{path}/cgroup.procs")
        if pids and missing:
            raise NotSupported(
                f"{', '.join(missing)}: cannot be enabled for the groups below {path}, where processes "
                f"{', '.join(pids[:5])} sit: move them to a group below it, or start the program with "
                "'systemd-run --user --scope -p Delegate=yes'",
                subject=path,
            )
        if pids:
            # Some controllers could be enabled beside processes, but that
            # makes the groups below invalid: none may enter them.
            return
    control = f"{path}/cgroup.subtree_control"
    if missing:
        try:
            _write(control, " ".join(f"+{name}" for name in missing))
        except OSError as error:
            raise NotSupported(
                f"{', '.join(missing)}: cannot be enabled for the groups below {path}: {error.strerror}; "
                "see that no process sits in that group itself, and that the group above has them",
                subject=path,
            ) from None
    for name in extra:
        try:
            _write(control, f"+{name}")
        except OSError:
            # Nobody asked for it: the container is counted less, no more.
            continue
    if moved:
        # Our own group is another one now, and its parent has controllers.
        detect(refresh=True)


def step_aside(path: str) -> bool:
    """
    Move this process and those it started out of the group *path*.

    A group of version 2 with processes of its own can give no controllers to
    the groups below.  Processes of others are left where they are.  Tells
    whether anything was moved.
    """
    pids = read_words(f"{path}/cgroup.procs")
    if not pids or not all(descends(int(pid)) for pid in pids):
        return False
    aside = f"{path}/{_CALLER}"
    try:
        os.makedirs(aside, exist_ok=True)
        for pid in pids:
            try:
                _write(f"{aside}/cgroup.procs", pid)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise
    except OSError as error:
        raise _failed("move this process to the group", aside, error) from None
    return True


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def write(path: str, value: str) -> None:
    """
    Write one value to a file of a group.
    """
    try:
        _write(path, value)
    except OSError as error:
        raise _failed(f"write {value!r} to", path, error) from None


def _failed(operation: str, path: str, error: OSError) -> KernelError:
    return KernelError(
        f"cgroup: {operation} {path}", errno=error.errno or errno.EIO, stage="cgroup", path=path
    )
