# SPDX-License-Identifier: Apache-2.0
"""
Options about files: mounts of every kind, devices, shared memory, a read-only
root.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import containerlib as cl
from containerlib import Container


def mounts(text: str) -> dict[str, str]:
    """
    The options of each mount point in the text of a mountinfo file.
    """
    return {line.split()[4]: line.split()[5] for line in text.splitlines() if " - " in line}


@pytest.fixture(name="source")
def _source(tmp_path):
    """
    A directory of the host with a file, open to the container's root.
    """
    directory = tmp_path / "source"
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "file").write_text("content\n")
    return directory


# ---- binds ------------------------------------------------------------------


def test_bind(run, source):
    """A host directory is seen inside, and what is written there is seen outside."""
    for volumes in (
        {str(source): "/in"},
        {source: ("/in", "rw")},
        [f"{source}:/in"],
        [cl.Mount(type="bind", source=str(source), target="/in")],
    ):
        assert "content\n" == run(["sh", "-c", "cat /in/file; echo new > /in/new"], volumes=volumes).stdout
        assert "new\n" == (source / "new").read_text()
        (source / "new").unlink()


def test_bind_read_only(run, source):
    """A read-only bind cannot be written to, nor made writable."""
    done = run(
        ["sh", "-c", "echo x > /in/new; mount -o remount,rw /in"], volumes=[f"{source}:/in:ro"], check=False
    )
    assert done.exit_code != 0
    assert "Read-only file system" in done.stderr
    assert ["file"] == os.listdir(source)


def test_bind_of_a_single_file(run, source):
    """A single file is bound over a file or a new name."""
    command = ["cat", "/etc/passwd", "/new/name"]
    out = run(command, volumes=[f"{source}/file:/etc/passwd:ro", f"{source}/file:/new/name"]).stdout
    assert "content\ncontent\n" == out


def test_binds_in_binds(run, source, tmp_path):
    """A bind below another is made after it, however they were given."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "deep").touch()
    (source / "sub").mkdir()
    out = run(["ls", "/in", "/in/sub"], volumes=[f"{inner}:/in/sub", f"{source}:/in"]).stdout
    assert ["/in:", "file", "sub", "/in/sub:", "deep"] == out.split()


def test_flags_of_a_bind(run, source):
    """Set-user-ID, devices and programs can be switched off for a bind."""
    out = run(["cat", "/proc/self/mountinfo"], volumes=[f"{source}:/in:ro,nosuid,nodev,noexec"]).stdout
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mounts(out)["/in"].split(","))


@pytest.mark.root
def test_read_only_is_recursive(tmp_path, engine, busybox_rootfs, program):
    """A mount below a read-only bind is read-only too."""
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    cl.Image.from_rootfs(busybox_rootfs, tag="busybox")
    child = program(
        f"""
        import subprocess
        from containerlib import shim
        shim.unshare(0x20000)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "{source}/sub"], check=True)
        done = cl.run("busybox", ["sh", "-c", "touch /in/sub/x; touch /in/x"], network="none",
                      volumes=["{source}:/in:ro"], check=False)
        print(done.stderr.count("Read-only"))
        """
    )
    assert "2\n" == child.end()


@pytest.mark.root
@pytest.mark.parametrize(("mode", "seen"), [("private", False), ("rslave", True)])
def test_propagation(tmp_path, busybox, program, mode, seen):
    """A mount made later on the host is seen inside when the bind is a slave, and not when it is private."""
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    child = program(
        f"""
        import subprocess
        from containerlib import shim
        shim.unshare(0x20000)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", "{source}", "{source}"], check=True)
        subprocess.run(["mount", "--make-shared", "{source}"], check=True)
        with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True,
                              volumes=["{source}:/in:{mode}"]) as container:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "{source}/sub"], check=True)
            open("{source}/sub/later", "w").close()
            print(container.exec(["ls", "/in/sub"]).stdout.split() == ["later"])
        """
    )
    assert f"{seen}\n" == child.end()


def test_nothing_of_a_container_shows_on_the_host(start, source, tmp_path):
    """No mount of a container appears in the host's mount table."""
    with start(volumes=[f"{source}:/in"], tmpfs=["/scratch"]):
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert str(tmp_path) not in table
    assert "/scratch" not in table


# ---- tmpfs, volumes, shared memory ------------------------------------------


def test_tmpfs(run):
    """A tmpfs has its size and mode, and is empty."""
    out = run(
        ["sh", "-c", "stat -c %a /scratch; df -k /scratch | tail -1; ls -A /scratch"],
        tmpfs={"/scratch": "size=3m,mode=1770"},
    ).stdout.split()
    assert ["1770", "tmpfs", "3072"] == out[:3]


def test_anonymous_volumes_of_the_image(engine, busybox_rootfs):
    """A VOLUME of the image starts with the image's files, is writable below a read-only root, and lasts."""
    image = cl.Image.from_rootfs(
        busybox_rootfs, tag="vol", config={"Volumes": {"/home/user": {}, "/data": {}}}
    )
    script = "echo x >> /data/f; wc -l < /data/f; cat /proc/self/mountinfo"
    container = Container.create(image, ["sh", "-c", script], network="none", read_only=True)
    for number in (1, 2):
        container.start()
        assert 0 == container.wait(timeout=20)
        assert f"{number}\n" in container.logs(since=container.started)
    assert {"/home/user", "/data"} <= set(mounts(container.logs(tail=60)))
    container.remove(volumes=True)


def test_shm_size(run):
    """/dev/shm has 64 MB or what was asked for."""
    command = ["sh", "-c", "df -k /dev/shm | tail -1"]
    assert "65536" == run(command).stdout.split()[1]
    assert "5120" == run(command, shm_size="5m").stdout.split()[1]


def test_read_only_root(run):
    """A read-only root refuses writes; /dev/shm, tmpfs and volumes take them."""
    script = "touch /x; touch /etc/x; touch /dev/shm/x && touch /run/x && echo fine"
    done = run(["sh", "-c", script], read_only=True, tmpfs=["/run"], check=False)
    assert "fine\n" == done.stdout
    assert 2 == done.stderr.count("Read-only file system")


# ---- devices ----------------------------------------------------------------


def test_default_devices(run):
    """/dev has Docker's devices, and they work."""
    out = run(
        ["sh", "-c", "ls /dev; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c"]
    ).stdout.split()
    expected = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"}
    expected |= {"stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert expected == set(out[:-2])
    assert ["4", "4"] == out[-2:]


def test_a_device(run):
    """A device given is there, under its name or another."""
    out = run(["sh", "-c", "echo x > /dev/mine && echo fine"], devices=["/dev/null:/dev/mine"]).stdout
    assert "fine\n" == out


@pytest.mark.root
@pytest.mark.cgroups
def test_devices_that_were_not_given(run):
    """A node that the container makes for a device that it was not given does not open."""
    script = "mknod /disk b 7 0 && head -c 1 /disk"
    done = run(["sh", "-c", script], cap_add=["MKNOD"], check=False)
    assert done.exit_code != 0
    assert "Operation not permitted" in done.stderr


# ---- call -------------------------------------------------------------------


def test_call_in_a_container(engine):
    """A function called in a container of the host's image sees the container, and its value comes back."""
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("the host has no /usr/bin/python3")

    def look(first: int, *, second: str) -> dict[str, object]:
        import os
        import socket

        return {"host": socket.gethostname(), "pid": os.getpid() < 100, "given": (first, second)}

    def fail() -> None:
        raise ValueError("no good")

    environment = {"PATH": "/usr/bin:/bin"}
    with Container.run(
        "host", ["sleep", "1000"], hostname="inner", network="none", init=True, environment=environment
    ) as container:
        assert {"host": "inner", "pid": True, "given": (1, "x")} == container.call(look, 1, second="x")
        with pytest.raises(ValueError, match="no good"):
            container.call(fail)


def test_the_host_stays_as_it_is(engine):
    """A container of the host's image changes its own copy only."""
    done = cl.run(
        "host", ["sh", "-c", "echo x > /etc/written && cat /etc/written"], network="none", check=False
    )
    assert not os.path.exists("/etc/written")
    if done.exit_code == 0:
        assert "x\n" == done.stdout
