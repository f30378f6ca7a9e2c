# SPDX-License-Identifier: Apache-2.0
"""
New limits for a container that runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs

from containerlib.errors import Conflict, KernelError
from containerlib.runtime.cgroups.layout import CgroupLayout, Hierarchy, detect, read_words
from containerlib.runtime.cgroups.limits import Limit, asked, limits, require, unlimited
from containerlib.runtime.cgroups.operate import directory_for, pids
from containerlib.runtime.cgroups.plan import CgroupDirectory, _enable, _kind, write
from containerlib.types import Resources

_MEMORY = "memory.limit_in_bytes"
_BOTH = "memory.memsw.limit_in_bytes"


def update(
    directories: Sequence[CgroupDirectory],
    old: Resources,
    new: Resources,
    *,
    layout: CgroupLayout | None = None,
) -> tuple[CgroupDirectory, ...]:
    """
    Change the limits of a running container from *old* to *new*.

    What *new* leaves out becomes unlimited.  Everything is checked before
    the first value is written.  Returns the directories, which are more than
    before when processors are restricted for the first time on version 1.

    Raises:
        Conflict:
            If the container uses more memory than the new limit allows.
        NotSupported:
            If the host cannot enforce a limit that was asked for.
    """
    layout = detect() if layout is None else layout
    changes = _changes(old, new, layout)
    found = list(directories)
    for controller in {change.controller for change in changes}:
        hierarchy = require(layout, controller, asked(new).get(controller) or asked(old)[controller])
        directory = directory_for(found, controller)
        if directory is None or directory.version != hierarchy.version:
            found.append(_late(found, hierarchy, [c for c in changes if c.controller == controller]))
        elif hierarchy.version == 2:
            _enable(os.path.dirname(directory.path), ("io" if controller == "blkio" else controller,), ())
    for change in _ordered(changes, found):
        directory = directory_for(found, change.controller)
        assert directory is not None
        try:
            write(f"{directory.path}/{change.file}", change.value)
        except KernelError as error:
            if change.optional:
                continue
            if change.file == _MEMORY:
                raise Conflict(
                    f"mem_limit: {change.value} is less than the container uses now and cannot give back: "
                    "choose a higher limit, or restart the container with this one",
                    subject="mem_limit",
                ) from error
            raise
    return tuple(found)


def _changes(old: Resources, new: Resources, layout: CgroupLayout) -> list[Limit]:
    """
    The values that differ, and for those that *new* has not, the way back.
    """
    before = {(limit.file, limit.device): limit for limit in limits(old, layout)}
    after = {(limit.file, limit.device): limit for limit in limits(new, layout)}
    changes = []
    for key, limit in before.items():
        if key not in after:
            hierarchy = layout.of(limit.controller)
            assert hierarchy is not None
            changes.append(unlimited(limit, hierarchy))
    for key, limit in after.items():
        if key not in before or before[key].value != limit.value:
            if limit.file == "io.max":
                # A line changes only the rates that it names.
                limit = attrs.evolve(limit, value=_all_rates(limit.value))
            changes.append(limit)
    return changes


def _all_rates(line: str) -> str:
    device, *rates = line.split()
    named = {rate.partition("=")[0] for rate in rates}
    return " ".join(
        (device, *rates, *(f"{key}=max" for key in ("rbps", "wbps", "riops", "wiops") if key not in named))
    )


def _ordered(changes: list[Limit], directories: Sequence[CgroupDirectory]) -> list[Limit]:
    """
    *changes* so that version 1's limit of memory never passes that of memory
    and swap, which the kernel refuses: the outer one first when it grows.
    """
    by_file = {change.file: change for change in changes}
    if _BOTH not in by_file:
        return changes
    directory = directory_for(directories, "memory")
    assert directory is not None
    now = int((read_words(f"{directory.path}/{_BOTH}") or ("0",))[0])
    wanted = int(by_file[_BOTH].value)
    grows = wanted < 0 or wanted > now
    first = {_BOTH: -1 if grows else 1, _MEMORY: 0}
    return sorted(changes, key=lambda change: first.get(change.file, 0))


def _late(
    directories: Sequence[CgroupDirectory], hierarchy: Hierarchy, changes: list[Limit]
) -> CgroupDirectory:
    """
    Make a group that the container did not need before, and move it there.

    Moving from outside stalls for a grace period, and a process that forks
    meanwhile leaves its child behind: so again until all are in.
    """
    name = os.path.basename(directories[0].path)
    path = f"{hierarchy.parent}/{name}"
    os.makedirs(path, exist_ok=True)
    directory = CgroupDirectory(hierarchy.version, _kind(hierarchy), path, hierarchy.controllers)
    for change in changes:
        write(f"{path}/{change.file}", change.value)
    while True:
        inside = set(pids([directory]))
        outside = [pid for pid in pids(directories) if pid not in inside]
        if not outside:
            return directory
        for pid in outside:
            try:
                write(f"{path}/cgroup.procs", str(pid))
            except KernelError as error:
                if not isinstance(error, ProcessLookupError) and error.errno != 3:
                    raise
