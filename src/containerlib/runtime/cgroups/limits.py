# SPDX-License-Identifier: Apache-2.0
"""
Which files of which controller hold the limits that were asked for.

One function per version of control groups; both refuse what the host cannot
enforce, before anything is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs

from containerlib.errors import InvalidOption, NotSupported
from containerlib.runtime.cgroups import convert
from containerlib.runtime.cgroups.layout import CgroupLayout, Hierarchy, read_words
from containerlib.types import BlkioConfig, Resources


@attrs.frozen
class Limit:
    """
    One value for one file; an *optional* one may fail without harm.

    *device* tells apart the values that one file takes for several devices.
    """

    controller: str
    file: str
    value: str
    optional: bool = False
    device: str = ""


_REMEDIES = {
    "memory": "boot the host with 'cgroup_enable=memory swapaccount=1'",
    "blkio": "load a kernel with CONFIG_BLK_CGROUP",
}


def asked(resources: Resources) -> dict[str, str]:
    """
    The controllers that *resources* need, each with the option that asks.
    """
    needs: dict[str, str] = {}
    for option, controller in (
        ("mem_limit", "memory"),
        ("memswap_limit", "memory"),
        ("mem_reservation", "memory"),
        ("oom_kill_disable", "memory"),
        ("cpus", "cpu"),
        ("cpu_shares", "cpu"),
        ("cpuset", "cpuset"),
        ("cpuset_mems", "cpuset"),
        ("blkio", "blkio"),
    ):
        if getattr(resources, option):
            needs.setdefault(controller, "blkio_config" if option == "blkio" else option)
    if resources.pids_limit is not None and resources.pids_limit > 0:
        needs["pids"] = "pids_limit"
    return needs


def require(layout: CgroupLayout, controller: str, option: str) -> Hierarchy:
    """
    The hierarchy that enforces *option*, or NotSupported with the way to it.
    """
    hierarchy = layout.of(controller)
    if hierarchy is None:
        delegated = layout.kind == "v2" and os.geteuid() != 0
        remedy = (
            "an administrator can delegate it to users with 'Delegate=yes' for user@.service"
            if delegated
            else _REMEDIES.get(controller, "use a kernel that has it, or mount it below /sys/fs/cgroup")
        )
        raise NotSupported(
            f"{option}: this process has no {controller!r} control group controller: {remedy}", subject=option
        )
    if not hierarchy.writable:
        raise NotSupported(f"{option}: the {controller!r} controller: {hierarchy.reason}", subject=option)
    name = "io" if hierarchy.version == 2 and controller == "blkio" else controller
    if hierarchy.blocked and name in hierarchy.controllers and name not in hierarchy.enabled:
        raise NotSupported(f"{option}: the {name!r} controller: {hierarchy.blocked}", subject=option)
    return hierarchy


def limits(resources: Resources, layout: CgroupLayout) -> list[Limit]:
    """
    Every file and value for *resources*, in the order of writing.
    """
    found: list[Limit] = []
    for controller, option in asked(resources).items():
        hierarchy = require(layout, controller, option)
        make = _V1[controller] if hierarchy.version == 1 else _V2[controller]
        found.extend(make(resources, hierarchy))
    return found


def _memory_v1(resources: Resources, hierarchy: Hierarchy) -> Iterator[Limit]:
    """
    The limit goes before that of memory and swap, which may not be below it.
    """
    swap_file = "memory.memsw.limit_in_bytes"
    memory, both = resources.mem_limit or None, resources.memswap_limit
    if memory:
        yield Limit("memory", "memory.limit_in_bytes", str(memory))
    if both:
        convert.swap_max(memory, both)
        if not os.path.exists(f"{hierarchy.mount}/{swap_file}"):
            raise NotSupported(
                "memswap_limit: the kernel does not count swap per group: boot it with 'swapaccount=1'",
                subject="memswap_limit",
            )
        if both > 0:
            yield Limit("memory", swap_file, str(both))
    elif memory:
        # As in Docker: as much swap as memory.  Without swap accounting there
        # is no such file.
        yield Limit("memory", swap_file, str(2 * memory), optional=True)
    if resources.mem_reservation:
        yield Limit("memory", "memory.soft_limit_in_bytes", str(resources.mem_reservation))
    if resources.oom_kill_disable:
        yield Limit("memory", "memory.oom_control", "1")


def _memory_v2(resources: Resources, _: Hierarchy) -> Iterator[Limit]:
    """
    Swap is counted apart from memory.

    memory.oom.group stays 0: as in version 1 and under Docker the kernel ends
    one process, and a program may outlive that of its child.
    """
    if resources.oom_kill_disable:
        raise NotSupported(
            "oom_kill_disable: cgroup v2 always ends a process when memory is exhausted: leave it out",
            subject="oom_kill_disable",
        )
    memory, both = resources.mem_limit or None, resources.memswap_limit
    if memory:
        yield Limit("memory", "memory.max", str(memory))
    if both:
        swap = convert.swap_max(memory, both)
        if swap != "max":
            if not os.path.exists("/proc/swaps"):
                raise NotSupported(
                    "memswap_limit: this kernel was built without swap: leave it out", subject="memswap_limit"
                )
            yield Limit("memory", "memory.swap.max", swap)
    elif memory:
        yield Limit("memory", "memory.swap.max", str(memory), optional=True)
    if resources.mem_reservation:
        yield Limit("memory", "memory.low", str(resources.mem_reservation))


def _cpu_v1(resources: Resources, hierarchy: Hierarchy) -> Iterator[Limit]:
    if resources.cpus:
        quota = convert.cpu_quota(resources.cpus)
        if not os.path.exists(f"{hierarchy.mount}/cpu.cfs_quota_us"):
            raise NotSupported(
                "cpus: this kernel has no CONFIG_CFS_BANDWIDTH: use cpu_shares or cpuset",
                subject="cpus",
            )
        yield Limit("cpu", "cpu.cfs_period_us", str(convert.PERIOD))
        yield Limit("cpu", "cpu.cfs_quota_us", str(quota))
    if resources.cpu_shares:
        yield Limit("cpu", "cpu.shares", str(resources.cpu_shares))


def _cpu_v2(resources: Resources, _: Hierarchy) -> Iterator[Limit]:
    if resources.cpus:
        yield Limit("cpu", "cpu.max", f"{convert.cpu_quota(resources.cpus)} {convert.PERIOD}")
    if resources.cpu_shares:
        yield Limit("cpu", "cpu.weight", str(convert.cpu_weight(resources.cpu_shares)))


def _cpuset(resources: Resources, hierarchy: Hierarchy) -> Iterator[Limit]:
    """
    In version 1 both files must be filled before a process may enter, so the
    one that was not asked for is copied from above.
    """
    inner = "effective_" if hierarchy.version == 1 else ""
    outer = "" if hierarchy.version == 1 else ".effective"
    for option, file in (("cpuset", "cpus"), ("cpuset_mems", "mems")):
        available = " ".join(read_words(f"{hierarchy.parent}/cpuset.{inner}{file}{outer}"))
        text = getattr(resources, option)
        if text:
            if available:
                convert.check_subset(option, text, available)
            yield Limit("cpuset", f"cpuset.{file}", text)
        elif hierarchy.version == 1:
            yield Limit("cpuset", f"cpuset.{file}", available)


def _pids(resources: Resources, _: Hierarchy) -> Iterator[Limit]:
    yield Limit("pids", "pids.max", str(resources.pids_limit))


def _blkio_v1(resources: Resources, hierarchy: Hierarchy) -> Iterator[Limit]:
    blkio = resources.blkio or BlkioConfig()
    if blkio.weight or blkio.weight_device:
        # The weight's own file is not in the topmost group; what is counted
        # by the same scheduler is.
        if os.path.exists(f"{hierarchy.mount}/blkio.bfq.io_service_bytes"):
            file = "blkio.bfq.weight"
        elif os.path.exists(f"{hierarchy.mount}/blkio.io_service_bytes"):
            file = "blkio.weight"
        else:
            raise _no_weight()
        if blkio.weight:
            yield Limit("blkio", file, str(blkio.weight))
        for path, weight in blkio.weight_device:
            number = convert.block_device(path)
            yield Limit("blkio", f"{file}_device", f"{number} {weight}", device=number)
    for file, rates in (
        ("read_bps", blkio.device_read_bps),
        ("write_bps", blkio.device_write_bps),
        ("read_iops", blkio.device_read_iops),
        ("write_iops", blkio.device_write_iops),
    ):
        if rates and not os.path.exists(f"{hierarchy.mount}/blkio.throttle.{file}_device"):
            raise NotSupported(
                f"blkio_config: device_{file}: the kernel has no CONFIG_BLK_DEV_THROTTLING: use one that has",
                subject="blkio_config",
            )
        for path, rate in rates:
            number = convert.block_device(path)
            yield Limit("blkio", f"blkio.throttle.{file}_device", f"{number} {rate}", device=number)


def _blkio_v2(resources: Resources, hierarchy: Hierarchy) -> Iterator[Limit]:
    blkio = resources.blkio or BlkioConfig()
    if blkio.weight or blkio.weight_device:
        # io.weight is there with the cost model, whose own file is in the
        # topmost group only; io.bfq.weight with the scheduler BFQ.
        cost = any(
            os.path.exists(f"{path}/{file}")
            for path, file in ((hierarchy.mount, "io.cost.qos"), (hierarchy.own, "io.weight"))
        )
        bfq = os.path.isdir("/sys/module/bfq")
        if not cost and not bfq:
            raise _no_weight()
        for path, weight in (("", blkio.weight), *blkio.weight_device):
            if weight is None:
                continue
            number = convert.block_device(path) if path else ""
            if cost:
                value = str(convert.io_weight(weight))
                yield Limit("blkio", "io.weight", f"{number or 'default'} {value}", device=number)
            if bfq:
                yield Limit(
                    "blkio", "io.bfq.weight", f"{number or 'default'} {weight}", optional=cost, device=number
                )
    for line in convert.io_max(
        (
            ("rbps", blkio.device_read_bps),
            ("wbps", blkio.device_write_bps),
            ("riops", blkio.device_read_iops),
            ("wiops", blkio.device_write_iops),
        )
    ):
        yield Limit("blkio", "io.max", line, device=line.partition(" ")[0])


def _no_weight() -> NotSupported:
    return NotSupported(
        "blkio_config: weight: neither BFQ nor the I/O cost model is there to share disks by weight: "
        "load the module 'bfq', or limit rates instead",
        subject="blkio_config",
    )


_V1 = {"memory": _memory_v1, "cpu": _cpu_v1, "cpuset": _cpuset, "pids": _pids, "blkio": _blkio_v1}
_V2 = {"memory": _memory_v2, "cpu": _cpu_v2, "cpuset": _cpuset, "pids": _pids, "blkio": _blkio_v2}

_UNLIMITED = {
    "memory.limit_in_bytes": "-1",
    "memory.memsw.limit_in_bytes": "-1",
    "memory.soft_limit_in_bytes": "-1",
    "memory.oom_control": "0",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "cpu.cfs_period_us": str(convert.PERIOD),
    "cpu.cfs_quota_us": "-1",
    "cpu.shares": "1024",
    "cpu.max": f"max {convert.PERIOD}",
    "cpu.weight": "100",
    "pids.max": "max",
    "blkio.bfq.weight": "100",
    "blkio.weight": "500",
    "io.weight": "default 100",
    "io.bfq.weight": "default 100",
}


def unlimited(limit: Limit, hierarchy: Hierarchy) -> Limit:
    """
    The value that takes *limit* away again.
    """
    if limit.controller == "cpuset":
        if hierarchy.version == 2:
            return attrs.evolve(limit, value="\n")
        name = limit.file.removeprefix("cpuset.")
        return attrs.evolve(limit, value=" ".join(read_words(f"{hierarchy.parent}/cpuset.effective_{name}")))
    if limit.file == "io.max":
        return attrs.evolve(limit, value=f"{limit.device} rbps=max wbps=max riops=max wiops=max")
    if limit.device:
        return attrs.evolve(limit, value=f"{limit.device} {'default' if limit.file.startswith('io.') else 0}")
    return attrs.evolve(limit, value=_UNLIMITED[limit.file])


def check_id(identity: str) -> None:
    """
    Refuse what cannot be part of a group's name.
    """
    if not identity or "/" in identity or "\0" in identity or identity.startswith("."):
        raise InvalidOption(f"id: {identity!r} cannot name a control group", subject="id")
