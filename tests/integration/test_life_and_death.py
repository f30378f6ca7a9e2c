# SPDX-License-Identifier: Apache-2.0
"""
Sudden deaths: of the program, of the monitor, of the first process, of all at
once.  No wrong exit code, nothing left running, nothing that cannot be removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct

import pytest

import containerlib as cl
from containerlib import Conflict, Container, ContainerNotFound, ExitCodeLost

STARTS = """
container = cl.Container.run("busybox", ["sleep", "1000"], name="victim", network="none", init=True,
                             {options})
print(container.pid, container.state.monitor_pid, flush=True)
signal.pause()
"""


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_and_wait(pid: int, ended) -> None:
    fd = os.pidfd_open(pid)
    kill(pid)
    assert ended(fd, pid=False)
    os.close(fd)


def is_gone(name: str) -> bool:
    return name not in [container.name for container in Container.list(all=True)]


@pytest.fixture(name="owned")
def _owned(busybox, program):
    """
    A container that belongs to another program: the program, its first process, its monitor.
    """

    def start(options: str = ""):
        child = program(STARTS.format(options=options))
        first, monitor = map(int, child.line().split())
        return child.process, first, monitor

    return start


# ---- owned and detached -----------------------------------------------------


def test_an_owned_container_dies_with_its_program(owned, ended, eventually, remains):
    """When the program is killed, what it owns is stopped and removed without its doing."""
    process, first, monitor = owned()
    pidfds = [os.pidfd_open(pid) for pid in (first, monitor)]
    process.kill()
    for fd in pidfds:
        assert ended(fd, pid=False)
        os.close(fd)
    eventually(lambda: not remains())
    assert is_gone("victim")


def test_an_owned_container_gets_its_grace_period(busybox, program, tmp_path, eventually):
    """The program's death stops the container as stop does: with its signal and its time."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    child = program(
        f"""
        script = "trap 'echo bye > /shared/bye; exit' TERM; echo ready; while :; do sleep 0.01; done"
        container = cl.Container.run("busybox", ["sh", "-c", script], network="none",
                                     volumes=["{shared}:/shared"])
        container.wait_until(log="ready")
        print("ready", flush=True)
        signal.pause()
        """
    )
    child.line()
    child.process.kill()
    eventually((shared / "bye").exists)
    eventually(lambda: not Container.list(all=True))


def test_a_detached_container_outlives_its_program(owned, eventually):
    """A detached container goes on, and another program looks after it: exec, logs, stop, remove."""
    process, first, _ = owned("detach=True")
    process.kill()
    process.wait()
    container = Container.get("victim")
    assert ("running", first) == (container.status, container.pid)
    assert "hello\n" == container.exec(["echo", "hello"]).stdout
    assert [("sleep", "1000")] == [p.args for p in container.top() if p.command == "sleep"]
    container.stop(timeout=5)
    assert 143 == container.exit_code == container.wait()
    container.start()
    assert "running" == container.status
    container.remove(force=True)
    assert is_gone("victim")


def test_created_and_started_outlives_its_program(busybox, program):
    """What was created and then started belongs to nobody and outlives the program."""
    child = program(
        """
        container = cl.Container.create("busybox", ["sh", "-c", "echo out; sleep 1000"], name="victim",
                                        network="none")
        container.start()
        container.wait_until(log="out")
        """
    )
    child.end()
    container = Container.get("victim")
    assert ("running", "out\n") == (container.status, container.logs())
    container.remove(force=True)


def test_exit_code_of_a_container_nobody_watches(busybox, program, eventually):
    """The exit code of a detached container is kept though its program is gone."""
    program(
        """
        cl.Container.run("busybox", ["sh", "-c", "sleep 0.2; exit 42"], name="victim", network="none",
                         detach=True)
        """
    ).end()
    container = Container.get("victim")
    assert 42 == container.wait(timeout=20)
    assert ("exited", 42) == (container.status, container.exit_code)


# ---- who is killed ----------------------------------------------------------


def lost(container: Container) -> bool:
    """
    Whether the container is known to have ended, and its code is not pretended to be known.
    """
    assert ("exited", None, None) == (container.status, container.exit_code, container.pid)
    assert "not known" in container.state.error
    found = container.inspect()["State"]
    assert ("exited", False) == (found["Status"], found["Running"])
    assert 0 != found["ExitCode"]
    with pytest.raises(ExitCodeLost, match="not known"):
        container.wait(timeout=5)
    return True


@pytest.mark.parametrize("init", [True, False], ids=["init", "plain"])
def test_the_monitor_is_killed(start, ended, init):
    """With its monitor the container dies; its exit code is lost, and it starts and goes like any other."""
    container = start(["sh", "-c", "sleep 1000 & sleep 1000"], detach=True, init=init, name="victim")
    inside = [os.pidfd_open(p.pid) for p in container.top()]
    kill_and_wait(container.state.monitor_pid, ended)
    for fd in inside:
        assert ended(fd, pid=False)
        os.close(fd)
    assert lost(container)
    for call in (container.stop, container.kill):
        with pytest.raises(Conflict, match="exited"):
            call()
    container.start()
    assert "running" == container.status
    kill_and_wait(container.state.monitor_pid, ended)
    container.remove(force=True)
    assert is_gone("victim")


def test_the_monitor_of_a_run_is_killed(run, remains, eventually):
    """Run raises ExitCodeLost when its monitor is killed, never a code, and removes the container."""

    class Input:
        """Kills the monitor when it is asked for more."""

        asked = False

        def read(self, _size: int = -1) -> bytes:
            [container] = Container.list(all=True)
            kill(container.state.monitor_pid)
            return b""

    with pytest.raises(ExitCodeLost):
        run(["sleep", "1000"], input=Input())
    eventually(lambda: not remains())


def test_the_monitor_is_killed_while_somebody_waits(start, ended):
    """wait, follow_logs and exec end, with an error or without, when the monitor is killed under them."""
    container = start(detach=True)
    process = container.popen(["sleep", "1000"])
    lines = container.follow_logs(timeout=20)
    attachment = container.attach()
    kill_and_wait(container.state.monitor_pid, ended)
    assert [] == list(lines)
    with pytest.raises(ExitCodeLost):
        attachment.wait(timeout=20)
    assert 137 == process.wait(timeout=20)
    attachment.close()
    process.close()
    with pytest.raises(ExitCodeLost):
        container.wait(timeout=20)


def test_the_first_process_is_killed(start):
    """SIGKILL from outside to the first process is exit code 137."""
    container = start(detach=True)
    kill(container.pid)
    assert 137 == container.wait(timeout=20)
    assert 9 == container.state.signal


def test_program_monitor_and_first_process_at_once(owned, ended, eventually, remains):
    """All of them killed at once: the next program sweeps what is left, and the name is free."""
    process, first, monitor = owned()
    for pid in (process.pid, monitor, first):
        kill(pid)
    process.wait()
    assert ended(first)
    assert ended(monitor)
    from containerlib.engine import Engine

    # What another process does at its first use of the engine.
    with Engine(cl.Engine.current().root, cl.Engine.current().run_root):
        assert is_gone("victim")
    eventually(lambda: not remains())


def test_monitor_and_program_at_once(owned, ended, eventually, remains, program):
    """Program and monitor killed at once: the first process dies too, and the next program sweeps."""
    process, first, monitor = owned()
    os.kill(process.pid, signal.SIGSTOP)
    kill(monitor)
    kill(process.pid)
    process.wait()
    assert ended(first)
    assert "0\n" == program("print(len(cl.Container.list(all=True)))").end()
    eventually(lambda: not remains())


@pytest.mark.cgroups
def test_no_cgroup_stays_after_a_dead_monitor(start, ended):
    """Removing a container whose monitor was killed removes its control groups."""
    from containerlib.containers import observing

    container = start(detach=True, pids_limit=20)
    first = container.pid
    directories = [d.path for d in observing.directories(container.engine, container.id)]
    assert directories
    kill_and_wait(container.state.monitor_pid, ended)
    assert ended(first)
    container.remove()
    assert [] == [path for path in directories if os.path.exists(path)]


def test_a_paused_container_whose_monitor_is_killed(start, ended):
    """A frozen container whose monitor is killed can be removed, and nothing of it stays frozen."""
    from containerlib.containers import observing

    container = start(detach=True)
    if not observing.directories(container.engine, container.id):
        pytest.skip("no cgroup that this user may write to")
    container.pause()
    pidfd = os.pidfd_open(container.pid)
    kill_and_wait(container.state.monitor_pid, ended)
    assert lost(container)
    container.remove(force=True)
    assert ended(pidfd, pid=False)
    os.close(pidfd)


def test_a_stopped_monitor_does_not_hang_observers(start):
    """A monitor that is halted delays nobody who only looks."""
    container = start(detach=True)
    monitor = container.state.monitor_pid
    os.kill(monitor, signal.SIGSTOP)
    try:
        assert "running" == container.status
        assert [container] == Container.list()
        assert "" == container.logs()
        assert container.top()
    finally:
        os.kill(monitor, signal.SIGCONT)


def test_sigterm_to_the_monitor_stops_the_container(start):
    """A monitor that is asked to end stops its container properly."""
    script = "trap 'exit 12' TERM; echo ready; while :; do sleep 0.01; done"
    container = start(["sh", "-c", script], detach=True, init=False)
    container.wait_until(log="ready")
    os.kill(container.state.monitor_pid, signal.SIGTERM)
    assert 12 == container.wait(timeout=20)


# ---- after a reboot ---------------------------------------------------------


def another_boot(container: Container) -> None:
    """
    Make the state file one that was written before a reboot.
    """
    from containerlib.store import makers

    path = container.engine.store.containers.path(container.id) / "state"
    data = path.read_bytes()
    boot = makers.boot_id().encode()
    assert boot in data
    path.write_bytes(data.replace(boot, b"0" * len(boot)))


def test_the_host_was_restarted(start, ended):
    """A container that ran when the host went down is exited, its code unknown, and starts again."""
    container = start(["sh", "-c", "echo up; sleep 1000"], detach=True)
    first = container.pid
    kill_and_wait(container.state.monitor_pid, ended)
    assert ended(first)
    another_boot(container)
    assert "the host was restarted" in container.state.error
    assert lost(container)
    container.start()
    container.wait_until(log="up")
    kill_and_wait(container.state.monitor_pid, ended)
    # What it tells now is about this boot.
    assert "monitor was killed" in container.state.error
    container.remove()


def test_a_pid_of_another_boot_is_not_touched(start, program, ended):
    """A pid in a record of another boot, or with another start time, is not ours to kill."""
    from containerlib.store import makers

    bystander = program("print('here', flush=True); signal.pause()")
    bystander.line()
    container = start(detach=True)
    first = container.pid
    kill_and_wait(container.state.monitor_pid, ended)
    assert ended(first)
    path = container.engine.store.containers.path(container.id) / "state"
    other = bystander.process.pid
    data = path.read_bytes().replace(struct.pack("=i", first), struct.pack("=i", other), 1)
    path.write_bytes(data)
    assert ("exited", None) == (container.status, container.exit_code)
    # The same pid and start time, of another boot.
    at = data.index(struct.pack("=i", other)) + 44
    data = data[:at] + struct.pack("=Q", makers.start_time(other)) + data[at + 8 :]
    path.write_bytes(data.replace(makers.boot_id().encode(), b"0" * len(makers.boot_id())))
    assert ("exited", None) == (container.status, container.exit_code)
    container.start()
    container.remove(force=True)
    assert bystander.process.poll() is None


def test_an_owner_of_another_boot_is_gone(busybox, program, eventually, remains):
    """What a program owned before a reboot is swept, though its pid is taken by another now."""
    program(
        """
        container = cl.Container.run("busybox", ["sleep", "1000"], name="victim", network="none", init=True)
        os.kill(container.state.monitor_pid, signal.SIGKILL)
        os._exit(0)
        """
    ).end()
    path = next(p for p in (cl.Engine.current().root / "containers").iterdir() if len(p.name) == 64) / "state"
    from containerlib.store import makers

    path.write_bytes(path.read_bytes().replace(makers.boot_id().encode(), b"0" * 16))
    assert "0\n" == program("print(len(cl.Container.list(all=True)))").end()
    eventually(lambda: not remains())


# ---- damaged states ---------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["no state", "empty state", "no config", "broken config", "only a directory"]
)
def test_a_damaged_container_can_be_removed(create, damage, remains):
    """A container whose files are damaged does not break the list, and is removed by force."""
    container = create(name="victim")
    other = create(name="other")
    path = container.engine.store.containers.path(container.id)
    match damage:
        case "no state":
            (path / "state").unlink()
        case "empty state":
            (path / "state").write_bytes(b"")
        case "no config":
            (path / "config.json").unlink()
        case "broken config":
            (path / "config.json").write_bytes(b'{"id": ')
        case _:
            for name in ("state", "config.json"):
                (path / name).unlink()
    assert other in Container.list(all=True)
    container.remove(force=True)
    with pytest.raises(ContainerNotFound):
        Container.get("victim")
    other.remove()
    assert [] == remains()
