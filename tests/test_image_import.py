# SPDX-License-Identifier: Apache-2.0
"""
Images from root file systems: directories and archives of every kind.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containerlib import images
from containerlib.errors import Conflict, ImageNotFound, InvalidOption, InvalidReference, KernelError
from containerlib.images.archive import InvalidArchive, Limits
from containerlib.images.compression import zstd_module
from containerlib.images.importer import import_rootfs
from containerlib.store import Store


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "root", tmp_path / "run")
    yield store
    store.close()


@pytest.fixture(name="rootfs")
def _rootfs(tmp_path: Path) -> Path:
    """
    A small tree with one of each kind of file that any user can make.
    """
    top = tmp_path / "rootfs"
    (top / "etc").mkdir(parents=True)
    (top / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (top / "bin").mkdir()
    (top / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (top / "bin" / "tool").chmod(0o4755)
    os.link(top / "bin" / "tool", top / "bin" / "other")
    os.symlink("/etc/passwd", top / "link")
    os.mkfifo(top / "fifo")
    (top / "etc").chmod(0o750)
    os.utime(top / "etc" / "passwd", ns=(10**18 + 1, 10**18 + 1))
    os.utime(top / "etc", ns=(10**18, 10**18))
    (top / os.fsdecode(b"n\xffme")).write_bytes(b"x")
    return top


def _tar(top: Path, **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        tar.add(top, arcname=".")
    return out.getvalue()


def _listing(top: Path) -> dict[str, tuple[object, ...]]:
    """
    What a tree shows to whoever compares it: kind, mode, owner, size, time, content, links.
    """
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        s = path.lstat()
        content: object = None
        if stat.S_ISREG(s.st_mode):
            content = (s.st_nlink, path.read_bytes())
        elif stat.S_ISLNK(s.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(top))] = (s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, content)
    return found


def _root(store: Store, record: images.ImageRecord) -> Path:
    return images.lower_directories(store, record)[0]


def test_directory(store: Store, rootfs: Path) -> None:
    """
    A directory becomes an image whose layer equals it in everything.
    """
    record = import_rootfs(store, rootfs, tag="me/app:1", config={"Cmd": ["tool"]})

    assert _listing(rootfs) == _listing(_root(store, record))
    assert (("docker.io/me/app:1",), {"Cmd": ["tool"]}) == (record.tags, record.config)
    assert (1, record.size) == (len(record.layers), len("root:x:0:0::/:/bin/sh\n") + 10 + 1)


def test_directory_twice(store: Store, rootfs: Path) -> None:
    """
    The same directory gives the same layer, kept once.
    """
    one, two = import_rootfs(store, rootfs), import_rootfs(store, rootfs)

    assert one.layers == two.layers
    assert [one.layers[0][7:]] == os.listdir(store.root / "layers" / "sha256")


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in members": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd_module().compress(data),
    "zstd in frames": lambda data: (
        b"\x50\x2a\x4d\x18\x03\0\0\0abc"
        + zstd_module().compress(data[:700])
        + zstd_module().compress(data[700:])
    ),
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressions(store: Store, rootfs: Path, tmp_path: Path, kind: str) -> None:
    """
    An archive's compression is told by its content; the layer is the same for all.
    """
    data = _tar(rootfs)
    expected = import_rootfs(store, io.BytesIO(data)).layers
    archive = tmp_path / "archive.doc"
    archive.write_bytes(COMPRESSIONS[kind](data))

    record = import_rootfs(store, archive)

    assert expected == record.layers


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_kept_blob(store: Store, rootfs: Path, kind: str) -> None:
    """
    The layer blob that is kept unpacks, by its media type, to the diff id.
    """
    data = COMPRESSIONS[kind](_tar(rootfs))
    record = import_rootfs(store, io.BytesIO(data))
    manifest = json.loads(store.blobs.read(record.manifests[0]))
    layer = manifest["layers"][0]
    with open(store.blobs.open(layer["digest"]), "rb") as file:
        blob = file.read()
    plain = {
        "application/vnd.oci.image.layer.v1.tar": bytes,
        "application/vnd.oci.image.layer.v1.tar+gzip": gzip.decompress,
        "application/vnd.oci.image.layer.v1.tar+zstd": lambda data: zstd_module().decompress(data),
    }[layer["mediaType"]]
    assert len(blob) == layer["size"]
    assert record.layers == ("sha256:" + hashlib.sha256(plain(blob)).hexdigest(),)


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_dialects(store: Store, tmp_path: Path, dialect: int) -> None:
    """
    Long names, long links and, where the dialect can, large ids are read in each dialect of tar.
    """
    top = tmp_path / "t"
    long = "/".join(["d" * 40] * (3 if dialect == tarfile.USTAR_FORMAT else 12))
    (top / long).mkdir(parents=True)
    (top / long / "file").write_text("x")
    if dialect != tarfile.USTAR_FORMAT:
        os.symlink("l" * 200, top / "link")

    record = import_rootfs(store, io.BytesIO(_tar(top, format=dialect)))

    assert list(_listing(top)) == list(_listing(_root(store, record)))


def test_gnu_tar(store: Store, rootfs: Path, tmp_path: Path) -> None:
    """
    Archives of GNU tar, in each of its formats and with sparse files, come out as they went in.
    """
    with (rootfs / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    for options in (
        ["--format=gnu"],
        ["--format=gnu", "--sparse"],
        ["--format=pax", "--xattrs"],
        ["--format=pax", "--sparse", "--sparse-version=0.0"],
        ["--format=pax", "--sparse", "--sparse-version=0.1"],
        ["--format=pax", "--sparse", "--sparse-version=1.0"],
        ["--format=ustar"],
    ):
        archive = tmp_path / "a.tar"
        subprocess.run(
            ["tar", "-C", rootfs, "-c", *options, "-f", archive, "."], check=True, env={**os.environ}
        )
        record = import_rootfs(store, archive)
        keep_times = "--format=pax" in options
        expected, found = _listing(rootfs), _listing(_root(store, record))
        if not keep_times:  # whole seconds only
            expected = {k: (*v[:3], v[3] // 10**9, *v[4:]) for k, v in expected.items()}  # type: ignore[operator]
            found = {k: (*v[:3], v[3] // 10**9, *v[4:]) for k, v in found.items()}  # type: ignore[operator]
        assert expected == found, options
        if "--sparse" in options:
            assert (_root(store, record) / "sparse").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        b"x" * 512,
        b"x" * 5000,
        gzip.compress(b"no archive" * 100, mtime=0),
        gzip.compress(b"x", mtime=0)[:10],
        b"\x1f\x8brubbish",
        b"\xfd7zXZ\x00rubbish",
        b"BZh91AY&SYrubbish",
        b"\x28\xb5\x2f\xfdrubbish",
    ],
)
def test_no_archive(store: Store, data: bytes) -> None:
    """
    What is no archive is InvalidArchive, and leaves the store as it was.
    """
    with pytest.raises(InvalidArchive):
        import_rootfs(store, io.BytesIO(data), tag="x")

    _assert_empty(store)


def _assert_empty(store: Store) -> None:
    assert [] == images.images(store)
    assert [] == store.blobs.digests()
    assert ([], []) == (
        os.listdir(store.root / "tmp"),
        os.listdir(store.root / "layers/sha256") if (store.root / "layers/sha256").exists() else [],
    )


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_cut_archive(store: Store, rootfs: Path, kind: str) -> None:
    """
    An archive that ends too early, wherever, is InvalidArchive, and leaves the store as it was.
    """
    data = COMPRESSIONS[kind](_tar(rootfs))
    ends = {1, 100, 511, 513, len(data) // 2, len(data) // 2 + 257}
    if kind != "plain":
        ends.add(len(data) - 1)
    for end in sorted(e for e in ends if e < len(data)):
        if kind == "plain" and end % 512 == 0:
            continue
        if kind.endswith(("members", "frames")) and end == 1:
            continue
        with pytest.raises(InvalidArchive):
            import_rootfs(store, io.BytesIO(data[:end]), tag="x")

    _assert_empty(store)


def test_missing_source(store: Store, tmp_path: Path) -> None:
    """
    A source that is not there is an error with its name.
    """
    with pytest.raises(InvalidOption, match="missing"):
        import_rootfs(store, tmp_path / "missing")


@pytest.mark.user
def test_unreadable_directory(store: Store, rootfs: Path) -> None:
    """
    A directory with something that the user may not read is an error that names it.
    """
    (rootfs / "secret").write_text("x")
    (rootfs / "secret").chmod(0)

    with pytest.raises(KernelError, match="secret"):
        import_rootfs(store, rootfs)

    _assert_empty(store)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"Command": ["x"]}, "Command"),
        ({"Cmd": "x"}, "Cmd"),
        ({"Cmd": [1]}, "Cmd"),
        ({"Env": ["A"]}, "Env"),
        ({"Env": ["=b"]}, "Env"),
        ({"Labels": ["a"]}, "Labels"),
        ({"User": 5}, "User"),
    ],
)
def test_bad_config(store: Store, rootfs: Path, config: dict[str, Any], name: str) -> None:
    """
    A configuration with an unknown field or a value of the wrong kind is refused by the field's name.
    """
    with pytest.raises(InvalidOption, match=name):
        import_rootfs(store, rootfs, config=config)


@pytest.mark.parametrize("tag", ["Bad", "a@sha256:" + "0" * 64, "host", "a b"])
def test_bad_tag(store: Store, rootfs: Path, tag: str) -> None:
    """
    A tag that is no name, or names the host's file system, is refused before anything is read.
    """
    with pytest.raises(InvalidReference):
        import_rootfs(store, rootfs, tag=tag)


def test_limits(store: Store, rootfs: Path) -> None:
    """
    An archive with more entries, or files that show more bytes, than allowed is refused.
    """
    data = _tar(rootfs)

    with pytest.raises(InvalidArchive, match="3 entries"):
        import_rootfs(store, io.BytesIO(data), limits=Limits(entries=3))
    with pytest.raises(InvalidArchive, match="20 bytes"):
        import_rootfs(store, io.BytesIO(data), limits=Limits(size=20))
    _assert_empty(store)


def test_documents(store: Store, rootfs: Path) -> None:
    """
    The id is the digest of the configuration, which has the layer's diff id and a history.
    """
    record = import_rootfs(store, rootfs, tag="a", config={"Labels": {"k": "v"}})
    document = json.loads(store.blobs.read(record.id))

    assert list(record.layers) == document["rootfs"]["diff_ids"]
    assert ("linux", {"k": "v"}, 1) == (
        document["os"],
        document["config"]["Labels"],
        len(document["history"]),
    )


def test_find(store: Store, rootfs: Path) -> None:
    """
    An image is found by name, digest, id and the beginning of its id.
    """
    record = import_rootfs(store, rootfs, tag="app:1")
    digest = f"app@{record.manifests[0]}"

    for key in (
        "app:1",
        "docker.io/library/app:1",
        digest,
        record.id,
        record.id[7:],
        record.id[7:15],
        record.id[:20],
    ):
        assert record.id == images.get(store, key).id
    for key in ("app", "app:2", "other:1", f"other@{record.manifests[0]}", "0" * 64, "sha256:" + "0" * 64):
        assert None is images.find(store, key)
    with pytest.raises(ImageNotFound, match="app:2"):
        images.get(store, "app:2")
    with pytest.raises(InvalidReference):
        images.find(store, "NOT A NAME")


def test_tag_moves(store: Store, rootfs: Path) -> None:
    """
    A name given to a second image leaves the first, which stays without one.
    """
    one = import_rootfs(store, rootfs, tag="app")
    (rootfs / "new").touch()
    two = import_rootfs(store, rootfs, tag="app")

    assert two.id == images.get(store, "app").id
    assert {one.id: (), two.id: ("docker.io/library/app:latest",)} == {
        r.id: r.tags for r in images.images(store)
    }


def test_tag_and_untag(store: Store, rootfs: Path) -> None:
    """
    An image may have several names; without the last one it stays.
    """
    record = import_rootfs(store, rootfs)
    images.tag(store, record, "a:1")
    images.tag(store, record, "b")
    tags = images.get(store, record.id).tags
    images.untag(store, "a:1")
    images.untag(store, "b")

    assert ("docker.io/library/a:1", "docker.io/library/b:latest") == tags
    assert () == images.get(store, record.id).tags
    with pytest.raises(ImageNotFound):
        images.untag(store, "b")


def test_remove(store: Store, rootfs: Path) -> None:
    """
    A removed image leaves nothing, and layers that another image uses stay.
    """
    one = import_rootfs(store, rootfs, tag="one")
    two = import_rootfs(store, rootfs, tag="two", config={"Cmd": ["x"]})

    images.remove(store, one)
    assert _root(store, two).is_dir()
    images.remove(store, two)

    _assert_empty(store)


def test_remove_in_use(store: Store, rootfs: Path) -> None:
    """
    An image that a container uses is not removed, and the error names the container; force takes its names.
    """
    record = import_rootfs(store, rootfs, tag="app")

    with pytest.raises(Conflict, match="web"):
        images.remove(store, record, users=lambda _: ["web"])
    images.remove(store, record, users=lambda _: ["web"], force=True)

    assert () == images.get(store, record.id).tags
    assert _root(store, record).is_dir()


def test_remove_with_several_names(store: Store, rootfs: Path) -> None:
    """
    An image with several names is removed only by force.
    """
    record = images.tag(store, import_rootfs(store, rootfs, tag="a"), "b")

    with pytest.raises(Conflict, match="2 names"):
        images.remove(store, record)
    images.remove(store, record, force=True)

    _assert_empty(store)


def test_concurrent_imports(store: Store, rootfs: Path) -> None:
    """
    Threads that import and remove at once leave a whole store.
    """
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                record = import_rootfs(
                    store, rootfs, tag=f"t{number}", config={"Cmd": [str(number)]}, durable=False
                )
                assert _root(store, record).is_dir()
                images.remove(store, record)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    _assert_empty(store)


IMPORT = """
import sys
from pathlib import Path
from containerlib.images.importer import import_rootfs
from containerlib.store import Store
store = Store(Path(sys.argv[1]) / "root", Path(sys.argv[1]) / "run")
print("go", flush=True)
import_rootfs(store, sys.stdin.buffer, tag="app")
"""


@pytest.mark.parametrize("part", [0, 0.3, 0.6, 0.999, 1])
def test_killed_importer(store: Store, tmp_path: Path, rootfs: Path, part: float) -> None:
    """
    After kill -9 in the middle of an import nothing of it is visible, and a sweep leaves nothing.
    """
    (rootfs / "big").write_bytes(os.urandom(3_000_000))
    data = _tar(rootfs)
    child = subprocess.Popen(
        [sys.executable, "-c", IMPORT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdout.readline()
        child.stdin.write(data[: int(len(data) * part)])
        child.stdin.flush()  # all but what a pipe holds has been read
        child.send_signal(signal.SIGKILL)
        child.wait()
    # A helper that was being started has a copy of its parent's lock until it execs.
    deadline = time.monotonic() + 10
    while store.sweep() or os.listdir(store.root / "tmp"):
        assert time.monotonic() < deadline

    store.layers_fd()
    _assert_empty(store)


def test_full_disk(store: Store, rootfs: Path, tmp_path: Path) -> None:
    """
    A write that fails for want of space is a KernelError with ENOSPC or EFBIG, and leaves nothing.
    """
    (rootfs / "big").write_bytes(b"x" * 3_000_000)
    data = _tar(rootfs)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        with pytest.raises(KernelError):
            import_rootfs(store, io.BytesIO(data), tag="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)

    _assert_empty(store)


def test_damaged_image_does_not_hide_others(store: Store, rootfs: Path) -> None:
    """
    One damaged image leaves the others usable, and deletes nothing of theirs.
    """
    good = import_rootfs(store, rootfs, tag="good")
    bad = import_rootfs(store, rootfs, tag="bad", config={"Cmd": ["x"]})
    store.blobs.path(bad.id).write_bytes(b"rubbish")

    assert [good.id] == [r.id for r in images.images(store)]
    assert good.id == images.get(store, "good").id


def test_layout_reads_as_oci(store: Store, rootfs: Path) -> None:
    """
    What the index points to is there with its digest and size.
    """
    import_rootfs(store, rootfs, tag="a")
    index = json.loads((store.root / "images" / "index.json").read_text())
    pending = list(index["manifests"])
    for descriptor in pending:
        path = store.blobs.path(descriptor["digest"])
        assert descriptor["size"] == path.stat().st_size
        if descriptor["mediaType"].endswith("manifest.v1+json"):
            manifest = json.loads(path.read_bytes())
            pending += [manifest["config"], *manifest["layers"]]

    assert 3 == len(pending)
