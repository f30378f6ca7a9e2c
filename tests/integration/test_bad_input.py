# SPDX-License-Identifier: Apache-2.0
"""
What bad input gets: each its own documented error, which names the value; the
container stays removable, and nothing is half made.
"""

from __future__ import annotations

import json

import pytest

import containerlib as cl
from containerlib import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    Container,
    ContainerNotFound,
    DeviceError,
    ImageNotFound,
    InvalidOption,
    MountError,
    NotSupported,
    StartFailed,
    UserNotFound,
    WorkingDirectoryError,
)

# ---- refused when it is made ------------------------------------------------

AT_CREATION = {
    "unknown signal": ({"stop_signal": "SIGNOTHING"}, InvalidOption, "SIGNOTHING"),
    "memory": ({"mem_limit": "12 apples"}, InvalidOption, "12 apples"),
    "memory below nothing": ({"mem_limit": -5}, InvalidOption, "-5"),
    "cpus": ({"cpus": "many"}, InvalidOption, "many"),
    "cpuset": ({"cpuset": "0-x"}, InvalidOption, "0-x"),
    "capability": ({"cap_add": ["NET_ADMIM"]}, InvalidOption, "NET_ADMIM"),
    "capability to drop": ({"cap_drop": ["CAP_NOTHING"]}, InvalidOption, "CAP_NOTHING"),
    "name": ({"name": "../evil"}, InvalidOption, "../evil"),
    "network": ({"network": "nosuch"}, (InvalidOption, NotSupported, cl.NetworkNotFound), "nosuch"),
    "network of nobody": ({"network": "container:nobody"}, ContainerNotFound, "nobody"),
    "ulimit": ({"ulimits": {"nofiles": 10}}, InvalidOption, "nofiles"),
    "restart": ({"restart": "sometimes"}, InvalidOption, "sometimes"),
    "sysctl": ({"sysctls": {"kernel.panic": 1}}, InvalidOption, "kernel.panic"),
    "security option": ({"security_opt": ["nonsense=1"]}, InvalidOption, "nonsense"),
    "volume": ({"volumes": ["relative/path:/x:zz"]}, InvalidOption, "relative/path"),
    "volume target": ({"volumes": {"/tmp": "relative"}}, InvalidOption, "relative"),
    "tmpfs": ({"tmpfs": {"/x": "size=lots"}}, InvalidOption, "lots"),
    "shm_size": ({"shm_size": "big"}, InvalidOption, "big"),
    "environment": ({"environment": ["=x"]}, InvalidOption, "=…"),
    "host name": ({"hostname": "a_b c"}, InvalidOption, "a_b c"),
    "health check": ({"healthcheck": {"test": "true", "interval": "often"}}, InvalidOption, "often"),
    "grace period": ({"stop_grace_period": "-1s"}, InvalidOption, "-1s"),
    "oom score": ({"oom_score_adj": 5000}, InvalidOption, "5000"),
    "entrypoint": ({"entrypoint": "'unclosed"}, InvalidOption, "unclosed"),
    "platform": ({"platform": "linux/"}, InvalidOption, "linux/"),
    "device": ({"devices": ["/dev/nosuchdevice"]}, (DeviceError, InvalidOption), "/dev/nosuchdevice"),
    "mount source": ({"volumes": ["/no/such/source:/x"]}, (MountError, InvalidOption), "/no/such/source"),
    "seccomp profile": ({"security_opt": ["seccomp=/no/such/profile"]}, InvalidOption, "/no/such/profile"),
    "env_file": ({"env_file": "/no/such/env"}, InvalidOption, "/no/such/env"),
}


@pytest.mark.parametrize("case", AT_CREATION)
def test_bad_values(create, remains, case):
    """A bad value is refused, at creation or at the start, by an error that names it."""
    options, error, value = AT_CREATION[case]
    with pytest.raises(error) as caught:  # noqa: PT012  # either call may refuse it
        container = create(["true"], **options)
        try:
            container.start()
        finally:
            assert "created" == container.status
            container.remove()
    assert value in str(caught.value)
    assert isinstance(caught.value, cl.ContainerlibError)
    assert [] == remains()
    assert [] == Container.list(all=True)


@pytest.mark.parametrize("case", ["device", "mount source", "memory", "capability"])
def test_bad_values_of_run(run, remains, case):
    """The same of run, which leaves nothing at all."""
    options, error, value = AT_CREATION[case]
    with pytest.raises(error) as caught:
        run(["true"], **options)
    assert value in str(caught.value)
    assert [] == remains()


def test_an_unknown_option_is_a_type_error(create):
    """A misspelled option is a TypeError that knows the right one."""
    with pytest.raises(TypeError, match="mem_limit"):
        create(memory="5m")
    with pytest.raises(TypeError, match="working_dir"):
        create(workingdir="/")


def test_unknown_image(engine, remains):
    """An image that is not there is named, and how it could be had."""
    with pytest.raises(ImageNotFound, match="nosuch:1.*from_rootfs"):
        Container.create("nosuch:1", ["true"], network="none")
    with pytest.raises(ImageNotFound, match="nosuch"):
        cl.run("nosuch", ["true"], network="none")
    with pytest.raises(cl.InvalidReference, match="NOT a reference"):
        cl.run("NOT a reference", ["true"], network="none")
    assert [] == remains()


def test_no_command(engine, busybox):
    """An image without a command and a call without one: the error says so."""
    with pytest.raises(InvalidOption, match="command"):
        cl.run("busybox", network="none")


# ---- refused at the start ---------------------------------------------------


@pytest.fixture(name="fails")
def _fails(create, run, remains):
    """
    Start a container and run one that cannot start: the errors' text.
    """

    def fails(command, error, *words, **options):
        with pytest.raises(error) as caught:
            run(command, **options)
        container = create(command, name="failed", **options)
        with pytest.raises(error) as again:
            container.start()
        for text in (str(caught.value), str(again.value)):
            for word in words:
                assert word in text
        assert isinstance(caught.value, StartFailed)
        assert "created" == container.status
        assert container.state.error
        with pytest.raises(Conflict, match="failed is created"):
            container.stop()
        container.remove()
        assert [] == remains()
        return caught.value

    return fails


def test_command_not_found(fails, start):
    """A command that is nowhere on the PATH is named, with the image; by a path likewise."""
    fails(["nosuch-command"], CommandNotFound, "nosuch-command", "busybox", "PATH")
    fails(["/bin/nosuch"], CommandNotFound, "/bin/nosuch", "busybox")
    fails(["nosuch-command"], CommandNotFound, "nosuch-command", init=True)
    with pytest.raises(CommandNotFound, match="nosuch-command"):
        start().exec(["nosuch-command"])


def test_exit_code_of_a_command_that_cannot_run(create):
    """The container of a command that was not found, or cannot be executed, has Docker's code for it."""
    for command, code in ((["nosuch"], 127), (["/etc/passwd"], 126)):
        container = create(command)
        with pytest.raises(StartFailed):
            container.start()
        assert code == container.exit_code


def test_not_executable(fails):
    """A file without the right to execute it, and a directory, are named."""
    fails(["/etc/passwd"], CommandNotExecutable, "/etc/passwd")
    fails(["/etc"], CommandNotExecutable, "/etc")


def test_wrong_architecture(engine, busybox_rootfs, tmp_path):
    """A program for another machine, or for none, is named as such."""
    program = bytearray((busybox_rootfs / "bin/busybox").read_bytes()[:4096])
    program[18:20] = (0xF3).to_bytes(2, "little")  # RISC-V
    for name, data in (
        ("riscv", bytes(program)),
        ("text", b"no program\n"),
        ("lost", b"#!/no/interpreter\n"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(0o755)
        with pytest.raises((CommandNotExecutable, CommandNotFound), match=name):
            cl.run(_image(busybox_rootfs), [f"/{name}"], network="none", volumes=[f"{path}:/{name}"])


def _image(rootfs):
    return cl.Image.from_rootfs(rootfs, tag="busybox")


@pytest.mark.parametrize("user", ["nobody-here", "root:nogroup-here", "nobody-here:0"])
def test_no_such_user(fails, user):
    """A user or group that the container does not know is named."""
    fails(["true"], UserNotFound, "-here", user=user)


def test_no_such_user_for_exec(start):
    """The same for a process in a running container."""
    container = start()
    with pytest.raises(UserNotFound, match="nobody-here"):
        container.exec(["true"], user="nobody-here")
    assert "running" == container.status


def test_working_directory_that_is_a_file(fails, start):
    """A working directory that is a file is named."""
    fails(["true"], WorkingDirectoryError, "/etc/passwd", working_dir="/etc/passwd")
    with pytest.raises(WorkingDirectoryError, match="/etc/passwd"):
        start().exec(["true"], working_dir="/etc/passwd")


def test_mount_over_a_file(fails, tmp_path):
    """A directory cannot be mounted on a file, nor a file on a directory."""
    (tmp_path / "file").touch()
    fails(["true"], MountError, "/etc/passwd", volumes=[f"{tmp_path}:/etc/passwd"])
    fails(["true"], MountError, "/etc", volumes=[f"{tmp_path}/file:/etc"])


def test_a_mount_whose_source_went_away(create, tmp_path):
    """A source that was there at creation and is gone at the start is named, and the container stays."""
    source = tmp_path / "source"
    source.mkdir()
    container = create(["true"], volumes=[f"{source}:/x"])
    source.rmdir()
    with pytest.raises(MountError, match=str(source)):
        container.start()
    source.mkdir()
    container.start()
    assert 0 == container.wait(timeout=20)


@pytest.mark.parametrize(
    "profile",
    [
        "not json",
        "[]",
        '{"defaultAction": "SCMP_ACT_NONSENSE"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "read"}]}',
        '{"syscalls": []}',
        json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": 5}]}),
    ],
)
def test_malformed_seccomp_profile(create, remains, tmp_path, profile):
    """A seccomp profile that is none is refused as one."""
    path = tmp_path / "profile.json"
    path.write_text(profile)
    with pytest.raises(InvalidOption, match="seccomp"):
        create(["true"], security_opt=[f"seccomp={path}"]).start()
    for container in Container.list(all=True):
        container.remove()
    assert [] == remains()


# ---- calls at the wrong time ------------------------------------------------


def test_bad_signals(start):
    """A signal that does not exist is named, and nothing is sent."""
    container = start()
    for signal in ("SIGNOTHING", 0, 65, -1, ""):
        with pytest.raises(InvalidOption, match=repr(signal) if signal != "" else "signal"):
            container.kill(signal)
    with pytest.raises(InvalidOption, match="NOPE"):
        container.stop(signal="NOPE")
    with pytest.raises(InvalidOption, match="-1"):
        container.stop(timeout=-1)
    assert "running" == container.status


def test_a_container_that_is_gone(create):
    """Every call on a removed container says that it is gone."""
    container = create()
    container.remove()
    calls = [
        container.start,
        container.stop,
        container.kill,
        container.restart,
        container.pause,
        container.unpause,
        container.remove,
        container.inspect,
        container.top,
        container.stats,
        container.logs,
        container.attach,
        container.wait,
        lambda: container.rename("other"),
        lambda: container.update(restart="no"),
        lambda: container.exec(["true"]),
        container.follow_logs,
        lambda: container.wait_until(log="x", timeout=1),
        lambda: container.exit_code,
        lambda: container.name,
    ]
    for call in calls:
        with pytest.raises(ContainerNotFound, match=container.short_id):
            call()
