# SPDX-License-Identifier: Apache-2.0
"""
Archives that try to reach beyond their directory.

Each test builds the archive of one known hole, imports it, and compares a
canary tree outside before and after.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from containerlib import images
from containerlib.errors import ContainerlibError
from containerlib.images.archive import InvalidArchive, Limits, TarReader
from containerlib.images.importer import import_rootfs
from containerlib.store import Store

Member = tuple[str, bytes, str]  # name, type, link target


@pytest.fixture(name="canary")
def _canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_text("alive")
    (path / "sub" / "file").write_text("alive")
    return path


@pytest.fixture(name="attack")
def _attack(tmp_path: Path, canary: Path) -> Iterator[Callable[..., Path | None]]:
    """
    Import an archive of members; the root of the layer, or None if it was refused.

    Afterwards the canary must be as it was, and nothing may have been made
    beside the store.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    before = _state(canary)

    def attack(*members: Member, **options: str) -> Path | None:
        known = [record.id for record in images.images(store)]
        try:
            record = import_rootfs(store, io.BytesIO(archive(*members, **options)), durable=False)
        except ContainerlibError:
            assert [] == os.listdir(store.root / "tmp")
            assert known == [record.id for record in images.images(store)]
            return None
        return images.lower_directories(store, record)[0]

    yield attack
    assert before == _state(canary)
    assert {"canary", "root"} == set(os.listdir(tmp_path))
    store.close()


def _state(top: Path) -> list[tuple[object, ...]]:
    return sorted(
        (str(p), s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns, s.st_size)
        for p in [top, *top.rglob("*")]
        for s in [p.lstat()]
    )


def archive(*members: Member, **pax: str) -> bytes:
    """
    Write a tar archive; members of type file have the content "evil".
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo("placeholder")
            info.name, info.type, info.linkname, info.mode = name, kind, link, 0o4777
            info.pax_headers = dict(pax)
            if kind == tarfile.REGTYPE:
                info.size = 4
                tar.addfile(info, io.BytesIO(b"evil"))
            else:
                tar.addfile(info)
    return out.getvalue()


FILE, DIR, SYM, LNK, CHR, FIFO = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
)


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "..", "../../canary/file", "./../evil", "a/b/../../../evil"]
)
@pytest.mark.parametrize("kind", [FILE, DIR, SYM, LNK, FIFO])
def test_dot_dot(attack: Callable[..., Path | None], name: str, kind: bytes) -> None:
    """
    A name with `..` is refused (CVE-2007-4559 and its successors).
    """
    assert None is attack(("ok", FILE, ""), (name, kind, "ok"))


def test_absolute_names(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    An absolute name lands below the root.
    """
    root = attack((f"{canary}/file", FILE, ""), ("///etc//passwd", FILE, ""))

    assert root is not None
    assert b"evil" == (root / str(canary)[1:] / "file").read_bytes()
    assert b"evil" == (root / "etc/passwd").read_bytes()


@pytest.mark.parametrize("name", [".", "./", "/", "", "./.", "//"])
@pytest.mark.parametrize("kind", [SYM, FILE, LNK, FIFO])
def test_root_replaced(attack: Callable[..., Path | None], canary: Path, name: str, kind: bytes) -> None:
    """
    An entry for the root that is no directory is refused (umoci, CVE-2021-29136).
    """
    assert None is attack((name, kind, str(canary)), ("file", FILE, ""))


@pytest.mark.parametrize("absolute", [True, False])
def test_write_through_link(attack: Callable[..., Path | None], canary: Path, absolute: bool) -> None:
    """
    A file below a link that leads outside is not written outside.
    """
    target = str(canary) if absolute else os.path.relpath(canary, "/") + "/" + "../" * 40 + str(canary)[1:]
    attack(("link", SYM, target), ("link/file", FILE, ""), ("link/new", FILE, ""), ("link/sub", DIR, ""))


def test_write_through_relative_link(attack: Callable[..., Path | None]) -> None:
    """
    A link that climbs with `..` stops at the root.
    """
    attack(("link", SYM, "../../../../../../canary"), ("link/file", FILE, ""))
    attack(("a", DIR, ""), ("a/link", SYM, "../../../canary"), ("a/link/file", FILE, ""))


def test_write_over_link(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    A file in the place of a link replaces the link.
    """
    root = attack(("link", SYM, str(canary / "file")), ("link", FILE, ""))

    assert root is not None
    assert (False, b"evil") == ((root / "link").is_symlink(), (root / "link").read_bytes())


def test_directory_over_link(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    A directory in the place of a link to a directory replaces the link; the target's mode stays.
    """
    root = attack(("link", SYM, str(canary)), ("link", DIR, ""), ("link/file", FILE, ""))

    assert root is not None
    assert ["file"] == os.listdir(root / "link")


def test_link_over_directory(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    Directory, then a link in its place, then a file below: the remembered directory is not used.
    """
    root = attack(
        ("d", DIR, ""),
        ("d/one", FILE, ""),
        ("d", SYM, str(canary)),
        ("d/sub/file", FILE, ""),
        ("d/file", FILE, ""),
    )

    assert root is None or (root / "d").is_symlink()


def test_directory_times_through_link(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    What is set last on directories, time and mode, does not follow a link laid later.
    """
    attack(("a", DIR, ""), ("a/sub", DIR, ""), ("a", SYM, str(canary)))


@pytest.mark.parametrize("through", ["link/file", "link/sub/file", "link"])
def test_hard_link_through_link(attack: Callable[..., Path | None], canary: Path, through: str) -> None:
    """
    A hard link through a link that leads outside does not reach the file outside.
    """
    root = attack(("link", SYM, str(canary)), ("got", LNK, through))

    if root is not None:  # "link" itself: the link is linked, not its target
        assert (root / "got").is_symlink()


@pytest.mark.parametrize("target", ["/etc/passwd", "../canary/file", "../../../canary/file"])
def test_hard_link_target_outside(attack: Callable[..., Path | None], target: str) -> None:
    """
    A hard link to an absolute path or through `..` is refused or stays inside.
    """
    assert None is attack(("got", LNK, target))


def test_hard_link_to_absolute_path_inside(attack: Callable[..., Path | None]) -> None:
    """
    An absolute hard link target means the file below the root, as kaniko writes it.
    """
    root = attack(("etc/passwd", FILE, ""), ("copy", LNK, "/etc/passwd"))

    assert root is not None
    assert 2 == (root / "copy").stat().st_nlink


def test_write_through_hard_link(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    A link, a hard link to it, and a file over that: the link's target is not written.
    """
    attack(("sym", SYM, str(canary / "file")), ("hard", LNK, "sym"), ("hard", FILE, ""), ("sym", FILE, ""))


def test_chain_of_links(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    Links to links to links, in any order, end inside or in an error.
    """
    up = "/".join([".."] * 30)
    attack(
        ("a", SYM, "."),
        ("a/b", SYM, ".."),
        ("a/b/c", SYM, f"b/{up}{canary}"),
        ("a/b/c/file", FILE, ""),
        ("c/sub/file", FILE, ""),
    )


def test_loop_of_links(attack: Callable[..., Path | None]) -> None:
    """
    A loop of links is an error, not an endless walk.
    """
    assert None is attack(("a", SYM, "b"), ("b", SYM, "a"), ("a/file", FILE, ""))


def test_path_longer_than_path_max(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    A path too long to be resolved is not taken for a harmless one (CVE-2025-4517).
    """
    part = "d" * 247
    steps = "abcdefghijklmnop"
    members: list[Member] = []
    path = ""
    for step in steps:
        members += [(path + part, DIR, ""), (path + step, SYM, part)]
        path += part + "/"
    short = "/".join(steps)
    members += [
        (short + "/" + "l" * 254, SYM, "../" * len(steps)),
        ("escape", SYM, short + "/" + "l" * 254 + "/../.." + str(canary)),
        ("flaglink", LNK, "escape/file"),
        ("escape/file", FILE, ""),
    ]

    attack(*members)


@pytest.mark.parametrize("name", ["link/", "link//", "link/."])
def test_trailing_slash(attack: Callable[..., Path | None], canary: Path, name: str) -> None:
    """
    A trailing slash does not make the last link be followed (CVE-2026-39822).
    """
    attack(("link", SYM, str(canary)), (name, DIR, ""), (name + "file", FILE, ""))


def test_pax_overrides(attack: Callable[..., Path | None], canary: Path) -> None:
    """
    Names that come by PAX headers are cleaned like others.
    """
    assert None is attack(("ok", FILE, ""), path="../canary/file")
    attack(("ok", SYM, "x"), linkpath=str(canary))
    assert None is attack(("ok", FILE, ""), **{"GNU.sparse.name": "../canary/file", "GNU.sparse.major": "0"})


def test_hostile_attributes(attack: Callable[..., Path | None]) -> None:
    """
    Attributes that the storage driver or a security module trusts are not taken from an archive.
    """
    root = attack(
        ("d", DIR, ""),
        **{
            "SCHILY.xattr.trusted.overlay.opaque": "y",
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.trusted.overlay.redirect": "/../../canary",
            "SCHILY.xattr.user.overlay.redirect": "/canary",
            "SCHILY.xattr.security.selinux": "x",
            "LIBARCHIVE.xattr.user.overlay.metacopy": "eA==",
        },
    )

    assert root is not None
    assert [] == [name for name in os.listxattr(root / "d") if name != "security.selinux"]


def test_whiteout_device(attack: Callable[..., Path | None]) -> None:
    """
    A device 0:0 in an archive does not become a whiteout of overlayfs.
    """
    root = attack(("gone", CHR, ""))

    assert root is not None
    assert [] == os.listdir(root)


def test_setuid_survives_but_stays_private(attack: Callable[..., Path | None], tmp_path: Path) -> None:
    """
    Set-id programs are unpacked as they are, below directories that nobody else can enter
    (containerd, CVE-2024-25621 and moby, CVE-2021-41091).
    """
    root = attack(("su", FILE, ""))

    assert root is not None
    assert 0o4777 == stat.S_IMODE((root / "su").stat().st_mode)
    for parent in (tmp_path / "root", tmp_path / "root/layers", tmp_path / "root/layers/sha256"):
        assert 0o700 == stat.S_IMODE(parent.stat().st_mode)


def _sparse(real: int, numbers: str, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo("s")
    info.size = len(data)
    info.pax_headers = {"GNU.sparse.size": str(real), "GNU.sparse.numblocks": "1", "GNU.sparse.map": numbers}
    return info.tobuf(tarfile.PAX_FORMAT) + data.ljust(512, b"\0") + b"\0" * 1024


@pytest.mark.parametrize(
    "data",
    [
        _sparse(10, "0,20", b"x" * 20),
        _sparse(10, "5,6", b"x" * 6),
        _sparse(100, "50,5,0,5", b"x" * 10),
        _sparse(100, "0,5,3,5", b"x" * 10),
        _sparse(1000, "0,1000", b"x" * 20),
        _sparse(100, "-5,5", b"x" * 20),
        _sparse(100, "0,-5", b"x" * 20),
    ],
)
def test_sparse_map(tmp_path: Path, data: bytes) -> None:
    """
    A sparse map that overlaps, goes backwards, or has more data than the archive is refused.
    """
    store = Store(tmp_path / "root", tmp_path / "run")

    with pytest.raises(InvalidArchive):
        import_rootfs(store, io.BytesIO(data), durable=False)


def test_sparse_bomb(tmp_path: Path) -> None:
    """
    The size that a sparse file shows counts, not the few bytes that its archive has.
    """
    store = Store(tmp_path / "root", tmp_path / "run")

    with pytest.raises(InvalidArchive, match="unpacks to more"):
        import_rootfs(store, io.BytesIO(_sparse(1 << 41, "0,1", b"x")), durable=False)
    with pytest.raises(InvalidArchive, match="unpacks to more"):
        import_rootfs(
            store, io.BytesIO(_sparse(1 << 20, "0,1", b"x")), durable=False, limits=Limits(size=1 << 19)
        )


def test_header_bombs() -> None:
    """
    Headers that announce gigabytes, and headers of headers without end, are refused at once.
    """
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.XHDTYPE, 1 << 33
    endless = tarfile.TarInfo("x")
    endless.type, endless.size = tarfile.GNUTYPE_LONGNAME, 5
    piece = endless.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    for data in (huge.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096, piece * 5000):
        with pytest.raises(InvalidArchive):
            list(TarReader(io.BytesIO(data)))


def test_negative_size() -> None:
    """
    A size below zero, as base-256 numbers can say, is refused (CVE-2025-8194).
    """
    data = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    data[124:136] = b"\xff" * 11 + b"\x00"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)

    with pytest.raises(InvalidArchive):
        list(TarReader(io.BytesIO(bytes(data) + b"\0" * 2048)))


SEEDS = [
    archive(("d", DIR, ""), ("d/f", FILE, ""), ("s", SYM, "d"), ("h", LNK, "d/f")),
    archive(("f" * 300, FILE, ""), mtime="1.5"),
    _sparse(100, "50,5", b"abcde"),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    st.booleans(),
)
@example(SEEDS[0], [], False)
def test_mutated_archives(seed: bytes, changes: list[tuple[int, int]], repair: bool) -> None:
    """
    A damaged archive gives entries with clean paths, or InvalidArchive; never another error.
    """
    data = bytearray(seed)
    for position, value in changes:
        data[position % len(data)] = value
    if repair:  # a right checksum lets the change through to the parser
        for start in range(0, len(data) - 511, 512):
            block = bytearray(data[start : start + 512])
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    reader = TarReader(io.BytesIO(bytes(data)))
    try:
        for entry in reader:
            assert b".." not in entry.path.split(b"/")
            assert not entry.path.startswith(b"/")
            while reader.read(1000):
                pass
    except InvalidArchive:
        pass
