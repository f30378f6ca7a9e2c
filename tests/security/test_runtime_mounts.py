# SPDX-License-Identifier: Apache-2.0
"""
Hostile root file systems and volumes: nothing is mounted, made or opened
outside of the container, and nothing that should be hidden is seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl
from containerlib.errors import ContainerlibError, InvalidOption, MountError, StartFailed
from containerlib.runtime import launch
from containerlib.shim import Op
from containerlib.types import Mount
from containerlib.types.inspect import MASKED_PATHS, READONLY_PATHS

Run = Callable[..., cl.Completed[str]]
Hostile = Callable[..., str]
Mounts = Callable[[str], dict[str, tuple[str, set[str]]]]


def replace_by_link(name: str, target: str) -> Callable[[Path], None]:
    """
    A change of a root file system: *name* becomes a link.
    """

    def change(top: Path) -> None:
        path = top / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return change


# ---- links in the root file system ------------------------------------------


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("inside", [True, False])
def test_system_directories_that_are_links(
    run: Run, hostile: Hostile, canary: Any, name: str, inside: bool
) -> None:
    """
    A root file system whose /proc, /sys or /dev is a link is refused, and
    what the link leads to stays as it is, within the root or outside
    (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579,
    CVE-2026-47766).
    """
    image = hostile(replace_by_link(name, "tmp" if inside else "../" * 20 + str(canary.path)[1:]))

    with pytest.raises(MountError, match=f"/{name}"):
        run(image, ["true"])
    canary.check()


@pytest.mark.parametrize(
    "name", ["dev/pts", "dev/shm", "dev/mqueue", "dev/console", "dev/null", "dev/ptmx", "sys/fs/cgroup"]
)
def test_links_below_the_system_directories(run: Run, hostile: Hostile, canary: Any, name: str) -> None:
    """
    Links that the image has below /dev and /sys are covered, not followed.
    """
    image = hostile(replace_by_link(name, "../" * 20 + str(canary.path)[1:]))

    assert "ok\n" == run(image, ["echo", "ok"]).stdout
    assert "ok\r\n" == run(image, ["echo", "ok"], tty=True).stdout


@pytest.mark.parametrize("name", ["etc/hosts", "etc/resolv.conf", "etc/hostname", "etc"])
def test_links_where_network_files_go(run: Run, hostile: Hostile, canary: Any, name: str) -> None:
    """
    A link in the place of a network file is followed inside the root only:
    outside nothing is made, and nothing of it is seen.
    """
    outside = canary.path if name == "etc" else canary.path / "made"
    image = hostile(replace_by_link(name, "../" * 20 + str(outside)[1:]))

    with contextlib.suppress(MountError):  # what a dangling link leads to is not made
        result = run(image, ["sh", "-c", "cat /etc/secret /etc/hosts"], check=False)
        assert "the host's secret" not in result.stdout
    canary.check()


def test_fake_files_below_proc(run: Run, hostile: Hostile) -> None:
    """
    A setting goes to the kernel, not to a file that the image has at its name
    (CVE-2019-19921, CVE-2025-52881).
    """

    def change(top: Path) -> None:
        fake = top / "proc/sys/net/ipv4/conf/lo"
        fake.mkdir(parents=True)
        (fake / "forwarding").write_text("fake\n", encoding="utf-8")

    image = hostile(change)
    name = "/proc/sys/net/ipv4/conf/lo/forwarding"

    result = run(image, ["cat", name], sysctls={"net.ipv4.conf.lo.forwarding": "1"})

    assert "1\n" == result.stdout


@pytest.mark.parametrize(
    "key",
    [
        "../sysrq-trigger",
        "net/../../sysrq-trigger",
        "net.ipv4/../../../sysrq-trigger",
        "/net/ipv4/ip_forward",
        "net//ipv4",
        "kernel.core_pattern",
        "kernel.sysrq",
        "vm.panic_on_oom",
        "fs.mqueue",
    ],
)
def test_settings_of_the_host(run: Run, busybox: cl.Image, key: str) -> None:
    """
    A setting that is not the container's own is refused before anything starts.
    """
    with pytest.raises(InvalidOption):
        run(command=["true"], sysctls={key: "1"})


@pytest.mark.parametrize(
    "key", ["../{pid}/oom_score_adj", "net/../../{pid}/oom_score_adj", "../version", "net/.."]
)
def test_the_helper_keeps_settings_below_proc_sys(
    run: Run, busybox: cl.Image, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """
    Even given a path that leads up, the helper writes nothing outside of
    /proc/sys (CVE-2025-52881: /proc/sysrq-trigger).
    """
    original = launch._add_kernel_settings
    value = Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip()

    def add(plan: Any, config: Any, *, userns: bool) -> None:
        original(plan, config, userns=userns)
        plan.add(Op.SYSCTL, strings=(key.format(pid=os.getpid()), value))

    monkeypatch.setattr(launch, "_add_kernel_settings", add)

    with pytest.raises(ContainerlibError, match="sysctl"):
        run(command=["true"])


# ---- volumes over /proc --------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/proc/1",
        "/proc/sysrq-trigger",
        "/link/attr",
        "/tmp/../proc/self",
        "//proc//",
    ],
)
def test_volumes_over_proc(run: Run, hostile: Hostile, canary: Any, target: str) -> None:
    """
    No volume may cover part of /proc, by whatever name (CVE-2019-16884).
    """
    image = hostile(replace_by_link("link", "proc/self"))
    source = canary.path / "secret" if target.endswith("trigger") else canary.path

    with pytest.raises((MountError, InvalidOption), match="proc"):
        run(image, ["true"], volumes=[Mount(type="bind", source=str(source), target=target)])


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/link/attr"])
def test_tmpfs_over_proc(run: Run, hostile: Hostile, target: str) -> None:
    """
    Neither may a tmpfs.
    """
    image = hostile(replace_by_link("link", "proc/self"))

    with pytest.raises((MountError, InvalidOption), match="proc"):
        run(image, ["true"], tmpfs=[target])


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/link/attr"])
def test_an_image_s_volume_over_proc(run: Run, hostile: Hostile, target: str) -> None:
    """
    Nor a volume that the image asks for (CVE-2019-16884).
    """
    image = hostile(replace_by_link("link", "proc/self"), config={"Volumes": {target: {}}})

    with pytest.raises(ContainerlibError, match="proc"):
        run(image, ["true"])


@pytest.mark.parametrize("target", ["/../../etc", "/..", "/a/../../../tmp/x", "/link/made"])
def test_an_image_s_volume_that_leads_out(run: Run, hostile: Hostile, canary: Any, target: str) -> None:
    """
    A volume of the image that leads out of the root stays in it: nothing is
    made outside, and nothing of outside is copied in (CVE-2022-23648).
    """
    image = hostile(
        replace_by_link("link", "../" * 20 + str(canary.path)[1:]), config={"Volumes": {target: {}}}
    )

    try:
        result = run(image, ["sh", "-c", f"ls -R {target}; cat {target}/secret {target}/shadow"], check=False)
    except ContainerlibError:
        pass  # refused
    else:
        assert "secret\n" not in result.stdout
    canary.check()


# ---- volumes over /dev ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "file", "directory", "fifo", "other device"])
def test_a_false_null_device(run: Run, busybox: cl.Image, shared: Path, kind: str) -> None:
    """
    Where a volume over /dev has anything but the null device as /dev/null,
    nothing is hidden with it: the start fails (CVE-2025-31133).
    """
    null = shared / "null"
    if kind == "link":
        null.symlink_to("/proc/sys/kernel/core_pattern")
    elif kind == "file":
        null.write_text("", encoding="utf-8")
    elif kind == "directory":
        null.mkdir()
    elif kind == "fifo":
        os.mkfifo(null)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 5))

    with pytest.raises(StartFailed, match="/dev/null"):
        run(command=["true"], volumes={shared: "/dev"})


@pytest.mark.parametrize("kind", ["link", "fifo", "file"])
def test_a_false_console(run: Run, busybox: cl.Image, canary: Any, tmp_path: Path, kind: str) -> None:
    """
    What is mounted at /dev/console is covered by the terminal, never opened
    or written: a FIFO there holds nobody up (CVE-2025-52565).
    """
    source = tmp_path / "console"
    if kind == "link":
        source = canary.path / "secret"
    elif kind == "fifo":
        os.mkfifo(source)
    else:
        source.write_text("as it was", encoding="utf-8")

    result = run(
        command=["sh", "-c", "echo written >/dev/console"],
        tty=True,
        volumes={source: "/dev/console"},
        timeout=20,
    )

    assert "written\r\n" == result.stdout
    if kind == "file":
        assert "as it was" == source.read_text(encoding="utf-8")


def test_a_false_terminal(run: Run, busybox: cl.Image, shared: Path, canary: Any) -> None:
    """
    A terminal is only ever opened on the container's own devpts
    (CVE-2025-52565).
    """
    (shared / "pts").symlink_to(canary.path)

    with pytest.raises(ContainerlibError, match="ptmx"):
        run(command=["true"], tty=True, volumes={shared: "/dev"})


# ---- where volumes come from and go to -----------------------------------------


@pytest.mark.parametrize(
    "target", ["/link", "/link/", "/link//", "/link/made", "/link/made/", "/link/inner/file"]
)
def test_targets_through_links(run: Run, hostile: Hostile, canary: Any, shared: Path, target: str) -> None:
    """
    A link in a target is followed inside the root, with and without a slash at
    the end; outside nothing is made (CVE-2026-39822, GHSA-vp62-88p7-qqf5).
    """
    image = hostile(replace_by_link("link", "../" * 20 + str(canary.path)[1:]))

    with contextlib.suppress(MountError):  # what a dangling link leads to is not made
        result = run(image, ["ls", "-R", target], volumes={shared: target}, check=False)
        assert "secret" not in result.stdout
    canary.check()


@pytest.mark.parametrize("target", ["/link", "/link/", "/link//", "/link/made", "/link/inner/file/"])
def test_targets_through_links_that_lead_somewhere(
    run: Run, hostile: Hostile, canary: Any, shared: Path, target: str
) -> None:
    """
    The same where the link's path exists in the root, too: that is the one.
    """
    (shared / "marker").write_text("here\n", encoding="utf-8")

    def change(top: Path) -> None:
        (top / "link").symlink_to("../" * 20 + str(canary.path)[1:])
        (top / str(canary.path)[1:]).mkdir(parents=True)

    image = hostile(change)
    shown = str(canary.path) + target.removeprefix("/link")

    result = run(image, ["cat", f"{shown}/marker"], volumes={shared: target})

    assert "here\n" == result.stdout


def test_absolute_links_inside_the_root_work(run: Run, hostile: Hostile, shared: Path) -> None:
    """
    An absolute link, as /var/run is one, means the container's own root.
    """
    (shared / "marker").write_text("here\n", encoding="utf-8")

    def change(top: Path) -> None:
        (top / "run/inner").mkdir(parents=True)
        (top / "var/run").symlink_to("/run/inner")

    image = hostile(change)

    result = run(image, ["cat", "/run/inner/x/marker"], volumes={shared: "/var/run/x"})

    assert "here\n" == result.stdout


@pytest.mark.parametrize(
    "subpath", ["link", "link/inner", "dir/../link", "dir/../../canary", "/etc", "..", "dir/up"]
)
def test_sub_paths_stay_in_their_volume(
    run: Run, busybox: cl.Image, shared: Path, canary: Any, subpath: str
) -> None:
    """
    The part of a volume that is mounted is found without following links, and
    never above the volume.
    """
    (shared / "dir").mkdir()
    (shared / "dir/up").symlink_to("../..")
    (shared / "link").symlink_to(canary.path)

    def attempt() -> None:
        mount = Mount(type="bind", source=str(shared), target="/x", subpath=subpath)
        run(command=["ls", "/x"], volumes=[mount])

    with pytest.raises((MountError, InvalidOption)):
        attempt()


def test_targets_made_in_a_volume(run: Run, busybox: cl.Image, shared: Path, canary: Any) -> None:
    """
    A mount point that has to be made in a volume is made in the volume, though
    the volume has a link to outside at that name (CVE-2024-45310).
    """
    (shared / "link").symlink_to("../" * 20 + str(canary.path)[1:])
    outer = Mount(type="bind", source=str(shared), target="/v")

    for inner, source in (("/v/link/made", canary.path), ("/v/link/file", canary.path / "secret")):
        with contextlib.suppress(MountError):
            run(command=["true"], volumes=[outer, Mount(type="bind", source=str(source), target=inner)])
    canary.check()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_read_only_volume(run: Run, busybox: cl.Image, shared: Path, read_only: bool) -> None:
    """
    A volume that is read-only cannot be written, by root inside neither.
    """
    mount = Mount(type="bind", source=str(shared), target="/v", read_only=read_only)

    result = run(
        command=["sh", "-c", "echo x >/v/x; mount -o remount,rw /v; echo x >/v/x"],
        volumes=[mount],
        check=False,
    )

    assert read_only == (not (shared / "x").exists()), result.stderr


@pytest.mark.root
def test_a_read_only_volume_with_mounts_below(
    engine: cl.Engine, run: Run, busybox: cl.Image, shared: Path
) -> None:
    """
    What is mounted below a read-only volume is read-only, too.
    """
    (shared / "below").mkdir()
    program = (
        "import containerlib as cl, ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.unshare(0x20000)\n"
        "libc.mount(None, b'/', None, 0x4000 | 0x40000, None)\n"
        f"assert 0 == libc.mount(b'tmpfs', {str(shared / 'below').encode()!r}, b'tmpfs', 0, None)\n"
        f"engine = cl.Engine({str(engine.root)!r}, {str(engine.run_root)!r})\n"
        f"print(cl.run('busybox', ['sh', '-c', 'touch /v/x /v/below/x; "
        f"true'], network='none', engine=engine,\n"
        f"    volumes={{{str(shared)!r}: ('/v', 'ro')}}).stderr)\n"
    )
    text = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert 2 == text.count("Read-only file system"), text


# ---- what is mounted -------------------------------------------------------------


def test_flags_of_the_standard_mounts(run: Run, busybox: cl.Image, mounts_in: Mounts) -> None:
    """
    No file system that the kernel makes up has set-uid programs, devices or
    programs to run, where it need not.
    """
    found = mounts_in(run(command=["cat", "/proc/self/mountinfo"]).stdout)
    all_three = {"nosuid", "nodev", "noexec"}

    for target in ("/proc", "/sys", "/dev/shm", "/dev/mqueue"):
        assert all_three <= found[target][1], target
    assert {"nosuid"} <= found["/dev"][1]
    assert {"nosuid", "noexec"} <= found["/dev/pts"][1]
    assert "ro" in found["/sys"][1]


def test_no_mount_of_the_host_is_left(run: Run, busybox: cl.Image, mounts_in: Mounts) -> None:
    """
    After the switch to the new root nothing of the old one is mounted.
    """
    found = mounts_in(run(command=["cat", "/proc/self/mountinfo"]).stdout)
    known = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")

    assert [] == [
        t for t in found if t != "/" and not any(t == top or t.startswith(top + "/") for top in known)
    ]


@pytest.mark.parametrize("cgroup", ["private", "host"])
@pytest.mark.parametrize("network", ["none", "host"])
def test_control_groups_are_read_only(
    run: Run, mounts_in: Mounts, busybox: cl.Image, cgroup: str, network: str
) -> None:
    """
    Every mount at and below /sys/fs/cgroup is read-only, with a cgroup
    namespace and without, with the host's network (where a user has the
    host's /sys) and without, as root and in a user namespace
    (CVE-2023-25809).
    """
    found = mounts_in(run(command=["cat", "/proc/self/mountinfo"], cgroup=cgroup, network=network).stdout)
    below = {target: options for target, (_, options) in found.items() if target.startswith("/sys")}

    assert {} == {target: options for target, options in below.items() if "ro" not in options}


def test_control_groups_cannot_be_written(run: Run, busybox: cl.Image) -> None:
    """
    No group can be made inside, and no limit changed.
    """
    program = (
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x && echo made; done; "
        "mount -o remount,rw /sys/fs/cgroup && echo rw"
    )

    assert "" == run(command=["sh", "-c", program], check=False).stdout


# ---- what is hidden ---------------------------------------------------------------


def test_hidden_paths(run: Run, busybox: cl.Image) -> None:
    """
    Each path that Docker hides shows an empty directory or the null device,
    if the host has it.
    """
    program = (
        f"for p in {' '.join(MASKED_PATHS)} /sys/devices/system/cpu/cpu*/thermal_throttle; do"
        ' [ -e "$p" ] || continue;'
        ' if [ -d "$p" ]; then [ -z "$(ls -A $p 2>&1)" ] || echo "open $p";'
        ' elif [ ! -c "$p" ] || [ -n "$(head -c 1 $p)" ]; then echo "open $p"; fi; done'
    )

    assert "" == run(command=["sh", "-c", program]).stdout


def test_hidden_paths_on_this_host(run: Run, busybox: cl.Image) -> None:
    """
    The test above looks at something: the host has some of them.
    """
    program = f"ls -d {' '.join(MASKED_PATHS)} 2>/dev/null | wc -l"

    assert 0 < int(run(command=["sh", "-c", program], check=False).stdout)
    assert any(os.path.exists(path) for path in MASKED_PATHS)


def test_read_only_paths(run: Run, busybox: cl.Image) -> None:
    """
    Each path that Docker makes read-only is, to root inside, too.
    """
    program = (
        f"for p in {' '.join(READONLY_PATHS)}; do [ -e $p ] || continue; "
        'grep -q " $p ro," /proc/self/mountinfo || echo open $p; done; '
        "(: >>/proc/sysrq-trigger) && echo open; (: >>/proc/sys/kernel/panic) && echo open; true"
    )

    assert "" == run(command=["sh", "-c", program]).stdout


def test_hidden_paths_cannot_be_uncovered(run: Run, busybox: cl.Image) -> None:
    """
    Root inside can unmount neither what hides nor what makes read-only.
    """
    program = (
        "umount /proc/kcore; umount /proc/keys; umount -l /proc/sys; "
        "mount -t proc proc /tmp; unshare -m true; cut -d' ' -f5 /proc/self/mountinfo"
    )
    before = run(command=["cut", "-d", " ", "-f5", "/proc/self/mountinfo"]).stdout

    assert before == run(command=["sh", "-c", program], check=False).stdout


# ---- the host image ---------------------------------------------------------------


@pytest.fixture(name="visible_engine")
def _visible_engine() -> Any:
    """
    An engine that is not below /tmp, which the host image does not show.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top, cl.Engine(top) as engine:
        Path(top, "marker").write_text("of the engine\n", encoding="utf-8")
        yield engine
        for container in cl.Container.list(all=True, engine=engine):
            container.remove(force=True)


@pytest.mark.parametrize(
    "prefix",
    ["", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/..", "/proc/1/root/proc/1/root", "/var/tmp/.."],
)
def test_the_engine_is_hidden_from_the_host_image(visible_engine: cl.Engine, prefix: str) -> None:
    """
    The directories of the engine show empty in the host image, by every road.
    """
    top = str(visible_engine.root)
    path = f"/var/tmp/../..{top}" if prefix == "/var/tmp/.." else f"{prefix}{top}"

    result = cl.run(
        "host",
        ["sh", "-c", f"ls -A {path}; cat {path}/marker; touch {path}/x && echo made"],
        network="none",
        working_dir="/etc",
        engine=visible_engine,
        check=False,
    )

    assert "" == result.stdout


def test_the_host_s_sockets_are_hidden(run: Run) -> None:
    """
    /run and /tmp of the host image start empty but for what belongs to the
    container: no service of the host can be reached through a socket there.
    """
    text = run("host", ["find", "/run", "/tmp", "/dev/shm", "-type", "s", "-o", "-type", "p"]).stdout

    assert "" == text


def test_the_host_s_processes_are_hidden(run: Run) -> None:
    """
    In the host image, too, only the container's own processes are seen.
    """
    text = run("host", ["sh", "-c", "for p in /proc/[0-9]*; do cat $p/comm; done"], check=False).stdout

    assert {"sh", "cat"} >= set(text.split())
