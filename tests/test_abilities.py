# SPDX-License-Identifier: Apache-2.0
"""
What the host can do: tried for real, kept for the boot, worded for people.
"""

from __future__ import annotations

import gc
import json
import os
import socket
from pathlib import Path

import pytest

import containerlib as cl
from containerlib.containers.creation import create
from containerlib.engine import Engine
from containerlib.errors import NotSupported
from containerlib.runtime import abilities, cgroups, idmap, probe
from containerlib.shim import CError, Stage
from containerlib.types import HostInfo


@pytest.fixture(name="info")
def _info(tmp_path: Path) -> HostInfo:
    return Engine(tmp_path / "root", tmp_path / "run").info()


def _containerlib_groups() -> set[Path]:
    return {
        path
        for hierarchy in cgroups.detect().hierarchies
        for path in Path(hierarchy.parent).glob(f"containerlib-probe-{os.getpid()}-*")
    }


def _need_overlay(engine: Engine) -> None:
    """
    Skip where nothing is kept, as no container can be set up.
    """
    overlay = engine.info().feature("overlay")
    if not overlay:
        pytest.skip(str(overlay))


def test_describes_this_host(info: HostInfo, tmp_path: Path) -> None:
    """
    The host's own names, the engine's directories and how ids are mapped.
    """
    system = os.uname()

    assert (system.release, system.machine) == (info.kernel, info.architecture)
    assert (str(tmp_path / "root"), str(tmp_path / "run")) == (info.root, info.run_root)
    assert (os.geteuid() != 0) == info.rootless
    assert idmap.detect().kind == info.id_mapping
    assert cgroups.detect().kind == info.cgroup_layout
    assert ("none", "host", "container") == info.network_modes
    assert cl.version() == info.version


def test_what_is_missing_has_reason_and_remedy(info: HostInfo) -> None:
    """
    Each feature is named once; what is not available says why and how to get it.
    """
    names = [feature.name for feature in info.features]
    silent = [f for f in info.features if not f.available and not (f.reason and f.remedy)]

    assert sorted(set(names)) == sorted(names)
    assert [] == silent
    assert [] == [f for f in info.features if f.available and f.remedy]


def test_what_is_available_can_be_used(info: HostInfo, engine: Engine, busybox: object) -> None:
    """
    Where the base is available, a container on an overlay runs with a filter and a terminal.
    """
    _need_overlay(engine)

    result = cl.run(
        "busybox", ["sh", "-c", "grep ^Seccomp: /proc/self/status; tty"], network="none", tty=True
    )

    assert "Seccomp:\t2" in result.stdout
    assert "/dev/" in result.stdout
    assert ("overlay", True) == (info.storage_driver, info.seccomp)
    for name in ("namespaces", "clone3", "mount_api", "openat2", "pidfd", "terminal", "user_namespaces"):
        assert info.feature(name).available, str(info.feature(name))


def test_limits_are_as_creation_says(info: HostInfo, engine: Engine, busybox: object) -> None:
    """
    A limit that is available is taken by create; one that is not is refused with NotSupported.
    """
    options = {"mem_limit": "64m", "pids_limit": 20, "cpus": 0.5, "cpu_shares": 512, "cpuset": "0"}
    for name, value in options.items():
        feature = info.feature(name)
        if feature:
            create(engine, "busybox", "true", {name: value, "network": "none"}, detach=True)  # type: ignore[misc]
            continue
        with pytest.raises(NotSupported, match=name):
            create(engine, "busybox", "true", {name: value, "network": "none"}, detach=True)  # type: ignore[misc]


def test_limits_do_not_bind_a_user_without_a_group(info: HostInfo) -> None:
    """
    The reason does not repeat the option's name, which the feature bears.
    """
    missing = [f for f in info.features if not f.available]

    assert [] == [f for f in missing if f.reason.startswith(f"{f.name}:")]


def test_raising_limits_is_what_the_kernel_says(info: HostInfo, engine: Engine, busybox: object) -> None:
    """
    Raising a hard limit works in a container exactly where the feature is available.
    """
    _need_overlay(engine)
    kind, _, hard = probe.finite_limit()
    names = {12: "msgqueue", 8: "memlock", 6: "nproc"}
    if kind not in names:
        pytest.skip("no hard limit is finite")
    ulimits = {names[kind]: hard + 1}

    if info.feature("raise_ulimits"):
        cl.run("busybox", "true", network="none", ulimits=ulimits)
    else:
        with pytest.raises(NotSupported, match="CAP_SYS_RESOURCE"):
            cl.run("busybox", "true", network="none", ulimits=ulimits)


def test_nothing_is_left(tmp_path: Path) -> None:
    """
    Trying leaves no directory, control group, descriptor or process.
    """
    engine = Engine(tmp_path / "root", tmp_path / "run")
    _need_overlay(engine)
    (tmp_path / "run/cache/abilities.json").unlink()
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))

    engine.info()

    assert ["abilities.json"] == os.listdir(tmp_path / "run/cache")
    assert ["cache"] == os.listdir(tmp_path / "run")
    assert [] == os.listdir(tmp_path / "root/tmp")
    assert set() == _containerlib_groups()
    assert set() == set(os.listdir("/proc/self/fd")) - before


def test_tried_once_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The second answer comes from the run root and is the same; another boot is tried anew.
    """
    engine = Engine(tmp_path / "root", tmp_path / "run")
    _need_overlay(Engine(tmp_path / "other"))
    tried = []
    real = probe.try_everything
    monkeypatch.setattr(probe, "try_everything", lambda *args: tried.append(1) or real(*args))

    first = engine.info()
    second = engine.info()
    document = json.loads((tmp_path / "run/cache/abilities.json").read_text())
    document["key"][1] = "another boot"
    (tmp_path / "run/cache/abilities.json").write_text(json.dumps(document))
    third = engine.info()

    assert first == second == third
    assert 2 == len(tried)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"key": 1}', b"\xff", b'{"key": null, "refused": 3}']
)
def test_a_damaged_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    """
    Whatever stands in the cache, the answer is right and the file whole afterwards.
    """
    engine = Engine(tmp_path / "root", tmp_path / "run")
    _need_overlay(engine)
    first = engine.info()
    path = tmp_path / "run/cache/abilities.json"
    path.write_bytes(content)

    assert first == engine.info()
    assert "key" in json.loads(path.read_text())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CError(code=28, stage=Stage.NAMESPACE, message="clone3 0x1"), "max_user_namespaces"),
        (CError(code=38, stage=Stage.SPAWN, message="clone3 0x1"), "Linux 5.12"),
        (CError(code=1, stage=Stage.IDMAP, message="make a user namespace"), "unprivileged_userns_clone"),
        (CError(code=30, stage=Stage.MONITOR, message="bind attach.sock"), "run root can be written"),
    ],
)
def test_a_host_that_can_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: CError, words: str
) -> None:
    """
    Where no container can be set up everything that needs one says so, with what helps, and
    nothing is kept.
    """
    monkeypatch.setattr(
        probe,
        "try_everything",
        lambda *args: probe.Outcome(refused={}, base=error),  # noqa: ARG005
    )

    info = Engine(tmp_path / "root", tmp_path / "run").info()

    assert ("none", False) == (info.storage_driver, info.seccomp)
    for name in ("namespaces", "overlay", "terminal"):
        assert not info.feature(name)
        assert error.message in info.feature(name).reason
        assert words in info.feature(name).remedy
    assert not (tmp_path / "run/cache").exists()


def test_an_overlay_that_is_refused(tmp_path: Path) -> None:
    """
    A file system that cannot hold an overlay is told apart from a host that can do nothing.
    """
    engine = Engine(tmp_path / "root", tmp_path / "run")
    store = engine.store
    with store.workspace("test", userns_fd=engine.userns_fd()) as fd:
        steps = list(probe.steps(store, Path(f"/proc/self/fd/{fd}/missing"), engine.mapping))

        error = probe.run(
            store, "probe-test", engine.mapping, steps[1:2], cgroups.CgroupPlan(), directory_fd=fd
        )

    assert error is not None
    assert "overlay" == probe.blame(error, steps, set(), cgroups.CgroupPlan())


def test_which_limit_was_refused() -> None:
    """
    The file that could not be written tells which limit it was.
    """
    files = {
        "mem_limit": ("memory.limit_in_bytes", "memory.max"),
        "memswap_limit": ("memory.memsw.limit_in_bytes", "memory.swap.max"),
        "cpus": ("cpu.cfs_quota_us", "cpu.max"),
        "cpu_shares": ("cpu.shares", "cpu.weight"),
        "cpuset": ("cpuset.cpus",),
        "pids_limit": ("pids.max",),
        "blkio_config.weight": ("blkio.bfq.weight", "io.weight"),
        "device_cgroup_rules": ("devices.deny",),
    }

    def blamed(message: str) -> str | None:
        error = CError(code=1, stage=Stage.CGROUP, message=message)
        return probe.blame(error, [], set(files), cgroups.CgroupPlan())

    for name, examples in files.items():
        assert {name} == {blamed(f"/sys/fs/cgroup/x/containerlib-1/{file}=5") for file in examples}
    assert "cgroups" == blamed("make control group /sys/fs/cgroup/x/containerlib-1")
    assert "device_cgroup_rules" == blamed("load the device program")


def test_file_system_of_a_path_with_a_blank(tmp_path: Path) -> None:
    """
    The type of the file system that holds a path, or what will hold it.
    """
    assert abilities.file_system(tmp_path) == abilities.file_system(tmp_path / "not yet" / "there")
    assert "proc" == abilities.file_system(Path("/proc/self"))
    assert "unknown" != abilities.file_system(Path("/"))


def test_text_and_notebook(info: HostInfo) -> None:
    """
    print(info()) has a line for each feature, and for each that is missing its remedy.
    """
    lines = str(info).splitlines()

    for feature in info.features:
        line = next(line for line in lines if line.split()[0] == feature.name)
        assert ("yes" if feature else "no") == line.split()[1]
    assert 120 >= max(map(len, lines)) or os.geteuid() != 0
    assert "<table>" in info._repr_html_()


def test_module_function(engine: Engine) -> None:
    """
    `containerlib.info()` is about the current engine.
    """
    assert str(engine.root) == cl.info().root


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    """
    An engine whose root is a file answers all the same: nothing can be done, because of that file.
    """
    (tmp_path / "file").write_text("")

    info = Engine(tmp_path / "file", tmp_path / "run").info()

    assert "none" == info.storage_driver
    assert str(tmp_path / "file") in info.feature("overlay").reason


@pytest.mark.parametrize("option", ["apparmor=docker-default", "label=type:svirt_t"])
def test_what_is_not_applied_is_refused(engine: Engine, busybox: object, option: str) -> None:
    """
    A profile or label that would be ignored is refused when the container is made.
    """
    with pytest.raises(NotSupported, match=option):
        cl.Container.create("busybox", "true", network="none", security_opt=[option])


def test_a_dead_helper_is_told() -> None:
    """
    A helper that dies without a word is an answer, too.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with probe.MonitorClient(ours.detach()) as status:
        assert "died" in probe.answer(status).message
