# SPDX-License-Identifier: Apache-2.0
"""
What an engine holds on disk, and removing what nothing uses.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import containerlib as cl
from containerlib.container import Container
from containerlib.engine import Engine
from containerlib.image import Image
from containerlib.runtime import seccomp
from containerlib.types import DiskUsage, Pruned


def _du(path: Path) -> int:
    """
    What du says; as a user it cannot look everywhere either.
    """
    done = subprocess.run(["du", "-s", "--block-size=1", path], capture_output=True, text=True)
    return int(done.stdout.split()[0])


def _stopped(image: str, command: str = "true") -> Container:
    container = Container.create(image, ["sh", "-c", command], network="none")
    container.start()
    container.wait()
    return container


def test_disk_usage_is_what_du_says(engine: Engine, busybox: object) -> None:
    """
    The total is du's, and each kind is du's of its directory; hard links and holes count once.
    """
    container = _stopped(
        "busybox", "dd if=/dev/zero of=/a bs=1k count=300 2>/dev/null; ln /a /b; truncate -s 9m /c"
    )
    root = engine.root

    usage = engine.disk_usage()

    assert _du(root) == usage.total
    assert _du(root / "layers") == usage.layers
    assert _du(root / "images") == usage.images
    assert _du(root / "containers") == usage.containers
    assert 300_000 < usage.containers < 2_000_000
    assert () == usage.unreadable
    assert 0 == usage.volumes
    container.remove()


def test_disk_usage_of_nothing(tmp_path: Path) -> None:
    """
    An engine that was never used holds nothing, and is not made by asking.
    """
    usage = Engine(tmp_path / "root", tmp_path / "run").disk_usage()

    assert (DiskUsage(), 0) == (usage, usage.total)
    assert not (tmp_path / "root").exists()


def test_disk_usage_names_what_it_cannot_read(engine: Engine, busybox: object) -> None:
    """
    A directory that only another id of the container may enter is counted without what is in it.
    """
    if engine.mapping.kind != "ranges":
        pytest.skip("needs other ids, and not to be root")
    container = _stopped("busybox", "mkdir -m 700 /x; echo 1 >/x/y; chown 1000 /x")

    usage = engine.disk_usage()

    assert (str(engine.store.containers.path(container.id) / "upper/x"),) == usage.unreadable
    assert _du(engine.root) == usage.total
    assert "1 directories of other ids" in str(usage)
    container.remove()


def test_disk_usage_as_text(engine: Engine, busybox: object) -> None:
    """
    One line for each kind and one for the total.
    """
    lines = str(engine.disk_usage()).splitlines()

    assert ["images:", "layers:", "containers:", "volumes:", "cache:", "other:", "total:"] == [
        line.split()[0] for line in lines
    ]


def test_prune(engine: Engine, busybox: object, busybox_rootfs: Path, tmp_path: Path) -> None:
    """
    Stopped containers and unused images without a name go; what runs or has a name stays.
    """
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "file").write_text("x" * 100_000)
    nameless = Image.from_rootfs(tmp_path / "small")
    (tmp_path / "small" / "file").write_text("y")
    named = Image.from_rootfs(tmp_path / "small", tag="small")
    ended, created = _stopped("busybox"), Container.create("busybox", "true", network="none")
    with Container.run("busybox", ["sleep", "60"], network="none", stop_signal="SIGKILL") as running:
        pruned = engine.prune()

        assert {ended.id, created.id} == set(pruned.containers)
        assert (nameless.id,) == pruned.images
        assert () == pruned.leftovers
        assert 100_000 <= pruned.freed < 1_000_000
        assert "running" == running.status
        assert {"busybox", "small"} == {tag.partition(":")[0] for i in Image.list() for tag in _names(i)}
        assert Pruned() == engine.prune()

        assert (named.id,) == engine.prune(all=True).images
        assert ["removed", "removed"] == [ended.status, created.status]
    assert [] == Container.list(all=True)


def _names(image: Image) -> list[str]:
    return [tag.rpartition("/")[2] for tag in image.tags]


def test_prune_keeps_an_image_in_use(engine: Engine, busybox: Image) -> None:
    """
    An image without a name stays as long as a container is made from it.
    """
    with Container.run("busybox", ["sleep", "60"], network="none", stop_signal="SIGKILL"):
        busybox.untag("busybox")

        assert () == engine.prune(all=True).images
        assert [] == Image.prune()
    assert [busybox.id] == Image.prune()
    assert [] == os.listdir(engine.root / "layers/sha256")


def test_prune_removes_leftovers(engine: Engine, busybox: object) -> None:
    """
    Orphan layers, blobs, run directories, and filters for other kernels go.
    """
    cl.run("busybox", "true", network="none")
    system = os.uname()
    current = f"{seccomp.REVISION}-default-0-{system.machine}-{system.release}"
    (engine.root / "cache").mkdir(exist_ok=True)
    (engine.root / "cache" / current).write_text("x")
    filters = set(os.listdir(engine.root / "cache"))
    (engine.root / "layers/sha256" / ("0" * 64)).mkdir()
    (engine.root / "layers/sha256" / ("0" * 64) / "file").write_text("x")
    (engine.root / "cache" / "0-default-0-x86_64-2.6.32").write_text("x")
    (engine.run_root / ("f" * 64)).mkdir()
    (engine.run_root / ("f" * 64) / "attach.sock").write_text("")
    blob = engine.store.blobs.write(b"nobody's")

    pruned = engine.prune()

    assert {"f" * 64, "0-default-0-x86_64-2.6.32"} == set(pruned.leftovers)
    assert filters == set(os.listdir(engine.root / "cache"))
    assert "0" * 64 not in os.listdir(engine.root / "layers/sha256")
    assert None is engine.store.blobs.size(blob)
    assert "f" * 64 not in os.listdir(engine.run_root)
    cl.run("busybox", "true", network="none")
