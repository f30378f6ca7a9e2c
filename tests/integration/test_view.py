# SPDX-License-Identifier: Apache-2.0
"""
The view from inside is Docker's, but for the differences that the documentation explains.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import pytest

import containerlib as cl

TREE = Path(__file__).parent.parent.parent
RECORDED = TREE / "tests/data/docker_view.txt"
VERDICTS = TREE / "tests/data/seccomp_default_x86_64.txt"
EXPLAINED = TREE / "docs/explanation/differences.md"

VIEWS: dict[str, dict[str, object]] = {
    "default": {},
    "terminal": {"tty": True},
    "user": {"user": "1000"},
    "hardened": {
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": ["KILL"],
        "security_opt": ["no-new-privileges"],
    },
}

# On a host with cgroup v2 alone, Docker's containers have a namespace of control groups too.
CGROUP2 = {
    "cgroup unified": "/",
    "mount /sys/fs/cgroup": "cgroup2 / ro,nosuid,nodev,noexec,relatime rw private",
    "modes /sys/fs/cgroup": "drwxr-xr-x 0:0",
    "writable /sys/fs/cgroup": "Read-only file system",
}


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


table = _load(TREE / "tests/view/table.py")


@pytest.fixture(name="image", scope="module")
def _image(
    tmp_path_factory: pytest.TempPathFactory, as_archive: Callable[[Path], Path]
) -> Iterator[tuple[cl.Engine, cl.Image]]:
    if shutil.which("cc") is None or not os.access(table.BUSYBOX, os.X_OK):
        pytest.skip("needs a C compiler and busybox-static")
    top = tmp_path_factory.mktemp("view")
    table.build_rootfs(top / "rootfs")
    engine = cl.Engine(top / "root", top / "run")
    image = cl.Image.from_rootfs(as_archive(top / "rootfs"), tag="view", engine=engine)
    yield engine, image
    image.remove(force=True)


def _look(image: tuple[cl.Engine, cl.Image], **options: object) -> tuple[str, str]:
    """
    The container's id, and what the script prints.
    """
    engine, view = image
    container = cl.Container.create(view, ["/view"], network="none", engine=engine, **options)
    try:
        container.start()
        assert 0 == container.wait(timeout=60)
        return container.id, container.logs()
    finally:
        container.remove(force=True)


def _circumstances(lane: str) -> set[str]:
    words = {"always"}
    if lane != "root":
        words.add("user")
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        words.add("v2")
    else:
        words.add("v1")
    return words


def _as_on_this_host(recorded: dict[str, str], circumstances: set[str]) -> dict[str, str]:
    """
    The recorded table with what the host that it was recorded on had and this one has not, and
    the other way round: control groups, and files of the kernel's.
    """
    docker = {}
    for key, value in recorded.items():
        kind, _, path = key.partition(" ")
        if kind == "sysctls":
            path = f"/proc/sys/{path}"
        if kind == "cgroup" or "/sys/fs/cgroup" in path:
            continue
        if not path.startswith(("/proc", "/sys")) or os.path.exists(path):
            docker[key] = value
    for path in table.READ_ONLY:
        if os.path.exists(path):
            flags = "ro,nosuid,nodev,noexec,relatime rw private"
            docker.setdefault(f"mount {path}", f"proc {path.removeprefix('/proc')} {flags}")
    for path in table.HIDDEN:
        if os.path.isdir(path):
            docker.setdefault(f"hidden {path}", "directory empty")
            docker.setdefault(f"mount {path}", docker["mount /sys/firmware"])
        elif os.path.exists(path):
            docker.setdefault(f"hidden {path}", "file empty")
            docker.setdefault(f"mount {path}", docker["mount /proc/keys"])
    for path in table.HIDDEN_LATER:
        if os.path.isdir(path):
            shown = any(os.scandir(path))
            docker.setdefault(f"hidden {path}", "directory shown" if shown else "directory empty")
    if "v2" in circumstances:
        return docker | CGROUP2
    docker |= {k: v for k, v in recorded.items() if k.endswith(" /sys/fs/cgroup")}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        name = line.split(":")[1]
        docker[f"cgroup {name or 'unified'}"] = "/docker/<id>"
        if name:
            flags = "ro,nosuid,nodev,noexec,relatime"
            target = f"/sys/fs/cgroup/{name.removeprefix('name=')}"
            docker[f"mount {target}"] = f"cgroup /docker/<id> {flags} rw,{name} private"
    return docker


def _explained(circumstances: set[str]) -> list[tuple[str, str, str]]:
    """
    The rows of the documentation that hold here: what, Docker's value, containerlib's.
    """
    rows = []
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| `"):
            continue
        what, when, docker, ours, _ = cells
        if set(when.split(", ")) <= circumstances:
            rows.append((what.strip("`"), docker.strip("`"), ours.strip("`")))
    return rows


def _is_explained(rows: list[tuple[str, str, str]], key: str, docker: str, ours: str) -> bool:
    return any(
        fnmatchcase(key, what) and fnmatchcase(docker, theirs) and fnmatchcase(ours, own)
        for what, theirs, own in rows
    )


@pytest.mark.cgroup2
@pytest.mark.parametrize("view", VIEWS)
def test_view_is_docker_s_but_where_explained(
    view: str, image: tuple[cl.Engine, cl.Image], lane: str
) -> None:
    """
    Status, mounts, devices, limits, groups, names and settings are those of Docker's container,
    or stand in the documentation with both values.
    """
    if view == "user" and image[0].mapping.kind == "single":
        pytest.skip("with a single id there is no other user")
    id_, text = _look(image, **VIEWS[view])
    limits = Path("/proc/self/limits").read_text(encoding="ascii")
    own = table.parse(text, container_id=id_, limits=limits)
    circumstances = _circumstances(lane)
    docker = _as_on_this_host(table.load(RECORDED)[view], circumstances)
    rows = _explained(circumstances)
    assert len(rows) > 10
    unexplained = [
        f"{key}: Docker {docker.get(key, '–')!r}, containerlib {own.get(key, '–')!r}"
        for key in sorted(docker.keys() | own.keys())
        if docker.get(key) != own.get(key)
        and not _is_explained(rows, key, docker.get(key, "–"), own.get(key, "–"))
    ]
    assert [] == unexplained


@pytest.mark.parametrize(("column", "options"), [(2, {}), (3, {"cap_add": ["SYS_ADMIN"]})])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the table is of x86_64")
def test_filter_in_a_container_answers_as_docker_s_profile(
    column: int, options: dict[str, object], image: tuple[cl.Engine, cl.Image]
) -> None:
    """
    The filter that a container has answers all of 380 system calls as Docker's profile says.
    """
    expected = {
        int(fields[1]): f"{fields[0]} {fields[column]}"
        for fields in map(str.split, VERDICTS.read_text(encoding="utf-8").splitlines())
        if fields[0] != "#"
    }
    assert len(expected) > 300
    _, text = _look(image, **options)
    given = dict(line.split() for line in table.section(text, "verdicts"))
    actual = {
        number: f"{name.split()[0]} {given[str(number)]}"
        for number, name in expected.items()
        if str(number) in given  # but the two that no filter sees
    }
    assert {number: name for number, name in expected.items() if number in actual} == actual
    assert len(expected) - len(actual) <= 2


def test_verdicts_are_heard_without_a_filter(image: tuple[cl.Engine, cl.Image]) -> None:
    """
    An unconfined container's calls are all allowed: the program that asks does not invent refusals.
    """
    _, text = _look(image, security_opt=["seccomp=unconfined"])
    assert {"allow"} == {line.split()[1] for line in table.section(text, "verdicts")}


@pytest.mark.cgroup2
def test_exec_has_the_container_s_namespaces(image: tuple[cl.Engine, cl.Image]) -> None:
    """
    What exec runs is in every namespace of the first process, and in its control groups.
    """
    engine, view = image
    script = "cd /proc/self; for name in ns/*; do readlink $name; done; cat cgroup; echo all"
    container = cl.Container.run(
        view, ["/bin/sh", "-c", f"{script}; exec sleep 100"], network="none", init=True, engine=engine
    )
    with container:
        container.wait_until(log="all", timeout=20)
        expected = container.logs()
        assert expected == container.exec(["/bin/sh", "-c", script]).stdout
    assert "cgroup:[" in expected
