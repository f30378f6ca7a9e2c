# SPDX-License-Identifier: Apache-2.0
"""
Removing trees that may hold anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerlib.errors import KernelError
from containerlib.store import remove_tree


@pytest.fixture(name="top")
def _top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _make_deep(top: int, name: str, depth: int) -> None:
    """
    Make nested directories, far deeper than a path may be long.
    """
    os.mkdir(name, dir_fd=top)
    fd = os.open(name, os.O_RDONLY, dir_fd=top)
    for level in range(depth):
        os.mkdir("d" * 100, dir_fd=fd)
        if level % 100 == 0:
            os.symlink("/", "link", dir_fd=fd)
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_deep_tree(top: int, tmp_path: Path) -> None:
    """
    A tree of 10,000 levels is removed.
    """
    _make_deep(top, "deep", 10_000)

    remove_tree("deep", dir_fd=top)

    assert [] == os.listdir(tmp_path)


def test_wide_tree(top: int, tmp_path: Path) -> None:
    """
    A directory of 20,000 entries is removed.
    """
    (tmp_path / "wide").mkdir()
    for number in range(20_000):
        os.mknod(tmp_path / "wide" / str(number))

    remove_tree("wide", dir_fd=top)

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300, 0o100])
@pytest.mark.parametrize("depth", [1, 40])
def test_directories_without_permission(top: int, tmp_path: Path, mode: int, depth: int) -> None:
    """
    Directories that their owner may not read, write or enter are removed with what is in them.
    """
    path = tmp_path / "tree"
    paths = []
    for level in range(depth):
        path = path / f"d{level}"
        path.mkdir(parents=True)
        (path / "file").touch()
        paths.append(path)
    for path in [*reversed(paths), tmp_path / "tree"]:
        path.chmod(mode)

    remove_tree("tree", dir_fd=top)

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("size", [1, 2000])
def test_links_are_not_followed(top: int, tmp_path: Path, size: int) -> None:
    """
    Links are removed themselves; what they point to is untouched, in the small and the large way.
    """
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("alive")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    for number in range(size):
        os.symlink(canary, tmp_path / "tree" / f"a{number}")
        os.symlink("../../canary/file", tmp_path / "tree" / "sub" / f"b{number}")

    remove_tree("tree", dir_fd=top)

    assert (["canary"], "alive") == (os.listdir(tmp_path), (canary / "file").read_text())


def test_top_is_a_link(top: int, tmp_path: Path) -> None:
    """
    A link in the place of the tree is removed, not what it points to.
    """
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").touch()
    os.symlink("canary", tmp_path / "tree")

    remove_tree("tree", dir_fd=top)

    assert ["file"] == os.listdir(tmp_path / "canary")


def test_missing(top: int) -> None:
    """
    A tree that is not there is no error.
    """
    remove_tree("missing", dir_fd=top)


@pytest.mark.parametrize("name", [".", "..", "a/b", "../x"])
def test_only_single_names(top: int, tmp_path: Path, name: str) -> None:
    """
    The helper refuses everything that is not one component.
    """
    from containerlib.store.trees import _remove_in_helper

    (tmp_path / "a" / "b").mkdir(parents=True)

    with pytest.raises(KernelError):
        _remove_in_helper(name, top, None)

    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.root
@pytest.mark.parametrize("size", [1, 2000])
def test_mounts_are_not_entered(top: int, tmp_path: Path, size: int) -> None:
    """
    A mount below is an error that names it, and what is mounted stays whole.
    """
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").touch()
    place = tmp_path / "tree" / "sub" / "mounted"
    place.mkdir(parents=True)
    for number in range(size):
        (tmp_path / "tree" / f"f{number}").touch()
    subprocess.run(["mount", "--bind", canary, place], check=True)
    try:
        with pytest.raises(KernelError, match="mounted"):
            remove_tree("tree", dir_fd=top)

        assert ["file"] == os.listdir(canary)
        assert ["sub"] == os.listdir(tmp_path / "tree")
    finally:
        subprocess.run(["umount", place], check=True)
    remove_tree("tree", dir_fd=top)
    assert ["canary"] == os.listdir(tmp_path)


def test_descriptors_and_memory_are_bounded(top: int, tmp_path: Path) -> None:
    """
    A deep tree is removed by a process that may open few files.
    """
    import resource

    _make_deep(top, "deep", 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, top + 60), hard))
    try:
        remove_tree("deep", dir_fd=top)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [] == os.listdir(tmp_path)
