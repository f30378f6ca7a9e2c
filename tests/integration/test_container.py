# SPDX-License-Identifier: Apache-2.0
"""
The life of a container: created, started, stopped, found, changed, removed.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import pytest

import containerlib as cl
from containerlib import Conflict, Container, ContainerNotFound, ContainerTimeout

READY = "echo ready; while :; do sleep 0.01; done"


# ---- start and end ----------------------------------------------------------


def test_from_created_to_removed(create):
    """A container goes from created to running to exited to removed, and its attributes follow."""
    before = datetime.now(UTC)
    container = create(["sh", "-c", "read x; exit 4"], stdin_open=True, name="one")
    assert ("created", None, None, None) == (
        container.status,
        container.exit_code,
        container.pid,
        container.started,
    )
    assert before <= container.created <= datetime.now(UTC)
    container.start()
    assert ("running", None) == (container.status, container.exit_code)
    assert container.pid > 1
    with container.attach() as attachment:
        attachment.stdin.write(b"x\n")
    assert 4 == container.wait(timeout=20)
    assert ("exited", 4, None) == (container.status, container.exit_code, container.pid)
    assert container.created <= container.started <= container.finished
    container.remove()
    assert "removed" == container.status
    with pytest.raises(ContainerNotFound, match="one"):
        Container.get("one")


def test_start_again(create):
    """A container that has ended starts again with what it wrote, and its log goes on."""
    container = create(["sh", "-c", "echo x >> /file; wc -l < /file"])
    for number in (1, 2, 3):
        container.start()
        assert 0 == container.wait(timeout=20)
        assert "".join(f"{n}\n" for n in range(1, number + 1)) == container.logs()


def test_start_of_a_running_container(start):
    """Starting a container that runs is a conflict that says so."""
    container = start()
    with pytest.raises(Conflict, match="running"):
        container.start()
    assert "running" == container.status


def test_stop_sends_the_stop_signal(start):
    """Stop sends SIGTERM, or the container's stop_signal, and the program ends as it likes."""
    container = start(["sh", "-c", f"trap 'exit 5' TERM; {READY}"], init=False)
    container.wait_until(log="ready")
    container.stop()
    assert 5 == container.exit_code
    container = start(["sh", "-c", f"trap 'exit 6' USR2; {READY}"], init=False, stop_signal="SIGUSR2")
    container.wait_until(log="ready")
    container.stop()
    assert 6 == container.exit_code


def test_stop_kills_after_the_grace_period(start):
    """A program that ignores the stop signal is killed after the time given, or the container's own."""
    for options, arguments in (({}, {"timeout": 0.2}), ({"stop_grace_period": "200ms"}, {})):
        container = start(["sh", "-c", f"trap '' TERM; {READY}"], init=False, **options)
        container.wait_until(log="ready")
        began = time.monotonic()
        container.stop(**arguments)
        assert time.monotonic() - began >= 0.2
        assert 137 == container.exit_code


def test_stop_with_another_signal(start):
    """A signal given to stop is sent instead of the container's."""
    container = start(["sh", "-c", f"trap 'exit 8' HUP; {READY}"], init=False)
    container.wait_until(log="ready")
    container.stop(signal="HUP")
    assert 8 == container.exit_code


@pytest.mark.parametrize("call", ["stop", "kill", "pause", "unpause", "exec", "attach", "top", "stats"])
def test_calls_that_need_a_running_container(create, call):
    """What needs a running container is a conflict that names the container and its state."""
    container = create(["true"], name="idle")
    arguments = (["true"],) if call == "exec" else ()
    with pytest.raises(Conflict, match="idle.* created"):
        getattr(container, call)(*arguments)
    container.start()
    container.wait(timeout=20)
    with pytest.raises(Conflict, match="idle.* exited"):
        getattr(container, call)(*arguments)


def test_restart(start):
    """Restart ends the program and starts it anew; of an ended container it is a start."""
    container = start(["sh", "-c", f"echo started; trap 'echo bye; exit' TERM; {READY}"], init=False)
    container.wait_until(log="ready")
    first = container.pid
    container.restart()
    assert "running" == container.status
    assert first != container.pid
    container.wait_until(log="ready")
    container.stop()
    assert "started ready bye started ready bye" == " ".join(container.logs().split())
    container.restart()
    assert "running" == container.status


def test_kill(start):
    """Kill sends any signal, by name or number, and SIGKILL without one."""
    container = start(["sh", "-c", f"trap 'echo got' USR1; {READY}"])
    container.wait_until(log="ready")
    container.kill("SIGUSR1")
    container.wait_until(log="got")
    container.kill()
    assert 137 == container.wait(timeout=20)


@pytest.mark.cgroups
def test_pause_and_unpause(start):
    """A paused container stands still, says so, refuses another pause, and goes on later."""
    container = start(["sh", "-c", "echo ready; i=0; while :; do i=$((i+1)); echo $i > /count; done"])
    container.wait_until(log="ready")
    container.pause()
    assert "paused" == container.status
    assert [container] == Container.list(status="paused")
    with pytest.raises(Conflict, match="paused already"):
        container.pause()
    with pytest.raises(Conflict, match="paused"):
        container.exec(["true"])
    container.unpause()
    assert "running" == container.status
    with pytest.raises(Conflict, match="running"):
        container.unpause()
    assert 0 == container.exec(["test", "-e", "/count"]).exit_code


@pytest.mark.cgroups
@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_a_paused_container_can_be_ended(start, end):
    """Stop, kill and forced removal end a paused container."""
    container = start()
    container.pause()
    match end:
        case "stop":
            container.stop(timeout=5)
        case "kill":
            container.kill()
            assert 137 == container.wait(timeout=20)
        case "remove":
            container.remove(force=True)
            assert "removed" == container.status


def test_wait(start):
    """Wait returns the exit code, again and again, and raises after its time."""
    container = start(["sh", "-c", "read x; exit 3"], stdin_open=True)
    with pytest.raises(ContainerTimeout, match=container.name):
        container.wait(timeout=0.05)
    with container.attach() as attachment:
        attachment.stdin.write(b"\n")
    assert [3, 3] == [container.wait(timeout=20), container.wait()]


def test_remove_of_a_running_container(start):
    """A running container is removed only by force."""
    container = start()
    with pytest.raises(Conflict, match="force=True"):
        container.remove()
    assert "running" == container.status
    container.remove(force=True)
    assert "removed" == container.status
    with pytest.raises(ContainerNotFound):
        container.remove()


def test_with_block(start):
    """At the end of a with block the container is stopped and removed, even after an error."""
    with pytest.raises(ZeroDivisionError), start() as container:  # noqa: PT012  # the block is the subject
        assert "running" == container.status
        1 / 0  # noqa: B018
    assert "removed" == container.status
    with start(["true"]) as container:
        container.wait(timeout=20)
    assert "removed" == container.status


def test_auto_remove(start, eventually):
    """A container with auto_remove is gone when it has ended."""
    container = start(["true"], auto_remove=True, detach=True)
    eventually(lambda: container.status == "removed")


# ---- names, lists -----------------------------------------------------------


def test_get(create):
    """A container is found by its name, id, short id and every unique beginning of the id."""
    container = create(name="web")
    for key in ("web", container.id, container.short_id, container.id[:5]):
        assert container == Container.get(key)
    with pytest.raises(ContainerNotFound, match="'?nothing'?"):
        Container.get("nothing")


def test_ambiguous_prefix(create, monkeypatch):
    """A beginning that several ids have is a conflict that says so."""
    from containerlib.containers import creation

    for last in "01":
        monkeypatch.setattr(creation, "new_id", lambda last=last: "ab" * 31 + "0" + last)
        create()
    with pytest.raises(Conflict, match="abab"):
        Container.get("abab")
    assert ("ab" * 31 + "01") == Container.get("ab" * 31 + "01").id


def test_a_name_is_unique(create):
    """A name that is taken is a conflict that names its holder, until the holder is gone."""
    holder = create(name="web")
    with pytest.raises(Conflict, match=f"web.*{holder.short_id}"):
        create(name="web")
    assert 1 == len(Container.list(all=True))
    holder.remove()
    create(name="web")


def test_rename(create):
    """A renamed container is found by its new name only, and the old one is free."""
    container = create(name="old")
    container.rename("new")
    assert "new" == container.name == Container.get("new").name == container.inspect()["Name"].lstrip("/")
    with pytest.raises(ContainerNotFound):
        Container.get("old")
    other = create(name="old")
    with pytest.raises(Conflict, match="old"):
        container.rename("old")
    with pytest.raises(ValueError, match="no/slash"):
        container.rename("no/slash")
    assert ("new", "old") == (container.name, other.name)


def test_rename_of_a_running_container(start):
    """A running container is renamed, and goes on."""
    container = start(name="before")
    container.rename("after")
    assert "running" == Container.get("after").status


def test_generated_names(create):
    """Without a name a container gets two words."""
    assert re.fullmatch(r"[a-z]+_[a-z]+\d*", create().name)


def test_list(create, start):
    """Without filters the list has what runs; with all everything, newest first."""
    first = create(["true"], labels={"role": "db", "tier": "1"}, name="first")
    second = start(labels={"role": "web"}, name="second")
    third = create(["sh", "-c", "exit 3"], name="third")
    third.start()
    third.wait(timeout=20)
    assert [second] == Container.list()
    assert [third, second, first] == Container.list(all=True)
    assert [third] == Container.list(last=1)
    assert [third, second] == Container.list(last=2)
    assert [first] == Container.list(status="created")
    assert [third, first] == Container.list(status=["created", "exited"])
    assert [third] == Container.list(exit_code=3)
    assert [third, first] == Container.list(name="ir", all=True)
    assert [second, first] == Container.list(labels="role", all=True)
    assert [first] == Container.list(labels={"role": "db"}, all=True)
    assert [first] == Container.list(labels=["role=db", "tier"], all=True)
    assert [second] == Container.list(image="busybox")
    with pytest.raises(ValueError, match="asleep"):
        Container.list(status="asleep")


def test_prune(create, start):
    """Prune removes what does not run and leaves the rest."""
    idle = create()
    running = start()
    assert [idle.id] == Container.prune()
    assert [running] == Container.list(all=True)


# ---- what it is -------------------------------------------------------------


def test_inspect(start):
    """Inspect has Docker's shape and the container's values."""
    container = start(["sleep", "1000"], name="box", environment={"A": "1"}, labels={"l": "x"})
    found = container.inspect()
    assert (container.id, "/box", "sleep", ["1000"]) == (
        found["Id"],
        found["Name"],
        found["Path"],
        found["Args"],
    )
    state = found["State"]
    assert ("running", True, container.pid, 0) == (
        state["Status"],
        state["Running"],
        state["Pid"],
        state["ExitCode"],
    )
    assert "A=1" in found["Config"]["Env"]
    assert {"l": "x"} == found["Config"]["Labels"]
    assert "none" == found["HostConfig"]["NetworkMode"]


def test_top(start, eventually):
    """Top lists every process with its numbers inside and outside."""
    container = start(["sh", "-c", "sleep 1001 & echo ready; wait"], init=False)
    container.wait_until(log="ready")
    eventually(lambda: container.top()[-1].command == "sleep")
    processes = container.top()
    assert [("sh", "-c", "sleep 1001 & echo ready; wait"), ("sleep", "1001")] == [p.args for p in processes]
    assert [1, 2] == [p.container_pid for p in processes]
    assert [container.pid, 0, "root"] == [processes[0].pid, processes[0].uid, processes[0].user]
    assert processes[0].pid == processes[1].ppid


@pytest.mark.subids
def test_top_knows_the_users(start):
    """Top names users as the container's passwd file does."""
    container = start(user="user")
    assert {("user", 1000)} == {(p.user, p.uid) for p in container.top()}


@pytest.mark.cgroups
def test_stats(start):
    """Statistics tell memory, processes and processor time."""
    container = start(mem_limit="64m", pids_limit=50)
    stats = container.stats()
    assert 0 < stats.memory < stats.memory_limit == 64 << 20
    assert (2, 50) == (stats.pids, stats.pids_limit)
    samples = container.follow_stats(interval=0.05)
    assert next(samples).cpu_percent is None
    assert next(samples).cpu_percent >= 0
    container.kill()
    assert len(list(samples)) <= 2


def test_repr_survives_removal(create):
    """A removed container can be printed, compared and hashed."""
    container = create(name="xx")
    assert "<Container(name='xx'" in repr(container)
    container.remove()
    assert "removed" in repr(container)
    assert {container} == {container, container}
    assert cl.Container is type(container)
