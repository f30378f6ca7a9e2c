# SPDX-License-Identifier: Apache-2.0
"""
What this host can do, why not, and how to get it.

Nothing is concluded from version numbers: what counts is tried, by setting a
container up (:mod:`containerlib.runtime.probe`), once a boot.  What was found
is kept in the run root, which ends with the boot, under a key of all that it
depends on.  A host that can set up no container is tried anew each time, so
that a remedy shows at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from containerlib import shim
from containerlib.errors import ContainerlibError, NotSupported
from containerlib.runtime import cgroups, idmap, probe
from containerlib.runtime.idmap import IdMapping
from containerlib.runtime.probe import Outcome
from containerlib.runtime.remedies import BLOCKED, REMEDIES, base_remedy
from containerlib.shim import CError, Stage
from containerlib.store import Store, makers
from containerlib.types import Feature, HostInfo

NETWORK_MODES = ("none", "host", "container")
RESOLVE_IN_ROOT = 0x10  # linux/openat2.h


@attrs.frozen(kw_only=True)
class _Found:
    """
    What the trials said; this is what is kept.
    """

    outcome: Outcome
    userns: CError | None = None
    cgroup_kill: int = 0


def host_info(root: Path, run_root: Path) -> HostInfo:
    """
    What an engine over *root* and *run_root* finds here.

    Makes the two directories if they are missing.
    """
    store = Store(root, run_root)
    try:
        return _info(store)
    finally:
        store.close()


def _info(store: Store) -> HostInfo:
    mapping = idmap.detect()
    layout = cgroups.detect()
    limits = [_without_prefix(feature) for feature in cgroups.features(layout)]
    found = _find(store, mapping, {feature.name for feature in limits if feature})
    system = os.uname()
    features = (*_features(store, mapping, found), *_limits(limits, found.outcome))
    seccomp = next(feature for feature in features if feature.name == "seccomp")
    overlay = next(feature for feature in features if feature.name == "overlay")
    return HostInfo(
        version=_version(),
        root=str(store.root),
        run_root=str(store.run_root),
        rootless=mapping.userns,
        id_mapping=mapping.kind,
        cgroup_layout=layout.kind,
        storage_driver="overlay" if overlay else "none",
        network_modes=NETWORK_MODES,
        seccomp=bool(seccomp),
        kernel=system.release,
        architecture=system.machine,
        features=features,
    )


@functools.cache
def _version() -> str:
    from importlib.metadata import version  # takes milliseconds to import

    return version("containerlib")


# ---- trying, once a boot ----------------------------------------------------


def _find(store: Store, mapping: IdMapping, limits: set[str]) -> _Found:
    """
    What was found before, or is found now.
    """
    key = _key(store, mapping, limits)
    found = _read(store, key)
    if found is None:
        found = _try(store, mapping, limits)
        if found.outcome.base is None and "overlay" not in found.outcome.refused:
            _write(store, key, found)
    return found


def _try(store: Store, mapping: IdMapping, limits: set[str]) -> _Found:
    try:
        outcome = probe.try_everything(store, mapping, limits)
        userns = None if mapping.userns else probe.try_user_namespace(store)
    except (ContainerlibError, OSError) as error:
        stage = Stage.IDMAP if isinstance(error, NotSupported) else Stage.NONE
        base = CError(code=0, stage=stage, message=str(error))
        return _Found(outcome=Outcome(refused={}, base=base))
    unified = cgroups.detect().unified
    refusal = None
    if unified is not None and unified.writable:
        refusal = probe.try_cgroup_kill(unified.parent)
    return _Found(outcome=outcome, userns=userns, cgroup_kill=(refusal.errno or errno.EIO) if refusal else 0)


def _key(store: Store, mapping: IdMapping, limits: set[str]) -> list[Any]:
    """
    All that a result depends on, but for what an administrator changes.
    """
    status = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
                status[name] = value.strip()
    return [
        _version(),
        makers.boot_id(),
        os.uname().release,
        os.geteuid(),
        status,
        os.readlink("/proc/self/ns/user"),
        str(store.root),
        mapping.kind,
        sorted(limits),
    ]


def _file(store: Store) -> str:
    return f"/proc/self/fd/{store.run_fd()}/cache/abilities.json"


def _read(store: Store, key: list[Any]) -> _Found | None:
    try:
        with open(_file(store), encoding="utf-8") as file:
            document = json.load(file)
        if document["key"] != key:
            return None
        refused = {name: _error(entry) for name, entry in document["refused"].items()}
        userns = document["userns"]
        return _Found(
            outcome=Outcome(refused=refused),
            userns=None if userns is None else _error(userns),
            cgroup_kill=document["cgroup_kill"],
        )
    except (OSError, ContainerlibError, ValueError, KeyError, TypeError):
        return None  # no such file, or half of one: it is found again


def _error(entry: list[Any]) -> CError:
    return CError(code=entry[0], stage=Stage[entry[1]], message=entry[2])


def _entry(error: CError) -> list[Any]:
    return [error.code, error.stage.name, error.message]


def _write(store: Store, key: list[Any], found: _Found) -> None:
    document = {
        "key": key,
        "refused": {name: _entry(error) for name, error in found.outcome.refused.items()},
        "userns": None if found.userns is None else _entry(found.userns),
        "cgroup_kill": found.cgroup_kill,
    }
    path = _file(store)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.rename(temporary, path)


# ---- in words ---------------------------------------------------------------


def _features(store: Store, mapping: IdMapping, found: _Found) -> Iterable[Feature]:
    """
    Everything but limits.
    """
    base, refused = found.outcome.base, found.outcome.refused
    yield _user_namespaces(mapping, found)
    yield _id_ranges(mapping)
    for name in ("namespaces", "clone3", "mount_api"):
        yield _tried(name, None, base)
    yield _openat2()
    yield _pidfd()
    overlay = _tried("overlay", refused.get("overlay"), base)
    kind = file_system(store.root)
    yield attrs.evolve(overlay, reason=f"on {kind}" if overlay else f"on {kind}: {overlay.reason}")
    for name in ("mount_setattr", "proc", "terminal", "seccomp", "net_sysctls"):
        yield _tried(name, refused.get(name), base)
    ulimits = _tried("raise_ulimits", refused.get("raise_ulimits"), base)
    yield (
        ulimits if ulimits or base else attrs.evolve(ulimits, reason="raising a hard limit is not permitted")
    )
    unified = cgroups.detect().unified
    for name, error in (("clone_into_cgroup", refused.get("clone_into_cgroup")), ("cgroup_kill", None)):
        if unified is None:
            yield Feature(
                name=name, available=False, reason="no cgroup v2 is mounted here", remedy=REMEDIES[name]
            )
        elif not unified.writable:
            reason, _, remedy = unified.reason.partition(": ")
            yield Feature(name=name, available=False, reason=reason, remedy=remedy)
        elif name == "cgroup_kill" and found.cgroup_kill:
            reason = f"ending a group at once: {os.strerror(found.cgroup_kill)}"
            yield Feature(name=name, available=False, reason=reason, remedy=REMEDIES[name])
        else:
            yield _tried(name, error, base)
    for name, reason in BLOCKED.items():
        yield Feature(name=name, available=False, reason=reason, remedy=REMEDIES[name])


def _words(error: CError) -> str:
    return f"{error.message}: {os.strerror(error.code)}" if error.code else error.message


def _tried(name: str, error: CError | None, base: CError | None) -> Feature:
    """
    A step that was refused, or that could not be tried.
    """
    if base is not None:
        reason = f"no container can be set up here ({_words(base)})"
        return Feature(name=name, available=False, reason=reason, remedy=base_remedy(base))
    if error is not None:
        return Feature(name=name, available=False, reason=_words(error), remedy=REMEDIES[name])
    return Feature(name=name, available=True)


def _user_namespaces(mapping: IdMapping, found: _Found) -> Feature:
    error = found.outcome.base if mapping.userns else found.userns or found.outcome.base
    if error is None:
        return Feature(name="user_namespaces", available=True)
    return Feature(name="user_namespaces", available=False, reason=_words(error), remedy=base_remedy(error))


def _id_ranges(mapping: IdMapping) -> Feature:
    if mapping.kind == "single":
        return Feature(name="id_ranges", available=False, reason=mapping.reason, remedy=mapping.remedy)
    count = sum(length for _, _, length in mapping.uids)
    return Feature(name="id_ranges", available=True, reason=f"{count} ids" if count else "all ids")


def _openat2() -> Feature:
    try:
        os.close(shim.openat2(-100, "/", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT))
    except ContainerlibError as error:
        return Feature(name="openat2", available=False, reason=str(error), remedy=REMEDIES["openat2"])
    return Feature(name="openat2", available=True)


def _pidfd() -> Feature:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Feature(name="pidfd", available=False, reason=str(error), remedy=REMEDIES["pidfd"])
    return Feature(name="pidfd", available=True)


def _without_prefix(feature: Feature) -> Feature:
    """
    The reason without the option's name, which the feature has.
    """
    option, separator, rest = feature.reason.partition(": ")
    if separator and option.replace("_", "").isalnum():
        return attrs.evolve(feature, reason=rest)
    return feature


def _limits(limits: Iterable[Feature], outcome: Outcome) -> Iterable[Feature]:
    """
    Limits, those that could not be set after all among them.
    """
    for feature in limits:
        error = outcome.refused.get(feature.name) or outcome.refused.get("cgroups")
        if feature and error is not None:
            remedy = REMEDIES["cgroups"]
            yield Feature(name=feature.name, available=False, reason=_words(error), remedy=remedy)
        else:
            yield feature


def file_system(path: Path) -> str:
    """
    The type of the file system that *path*, or what is above it, lies on.
    """
    real = os.path.realpath(path)
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, after.split(" ")[0]
    return kind
