# SPDX-License-Identifier: Apache-2.0
"""
Several callers act on one container: one of them succeeds, the others get a
documented error, and what is left is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import containerlib as cl
from containerlib import Conflict, Container, ContainerNotFound

ROUNDS = 6


@pytest.fixture(name="at_once")
def _at_once(engine):
    """
    Do things at the same moment, each on an engine of its own as other
    processes have; their results, or the errors they raised.
    """

    def at_once(*actions: Callable[[Container], object], key: str) -> list[object]:
        barrier = threading.Barrier(len(actions))

        def act(action: Callable[[Container], object]) -> object:
            with cl.Engine(engine.root, engine.run_root) as own:
                container = Container.get(key, engine=own)
                barrier.wait()
                try:
                    return action(container)
                except cl.ContainerlibError as error:
                    return error

        with ThreadPoolExecutor(len(actions)) as pool:
            return list(pool.map(act, actions))

    return at_once


def errors(results: list[object]) -> list[type]:
    return sorted((type(result) for result in results if isinstance(result, Exception)), key=str)


def test_start_and_start(create, at_once):
    """Of four starts at once one succeeds, and the others are conflicts."""
    container = create()
    for _ in range(ROUNDS):
        results = at_once(*[Container.start] * 4, key=container.id)
        assert [Conflict] * 3 == errors(results)
        assert "running" == container.status
        container.kill()
        container.wait(timeout=20)


def test_stop_and_remove(create, at_once):
    """A stop and a removal by force at once: the container is gone, and a stop that came late says so."""
    for _ in range(ROUNDS):
        container = create(["sleep", "1000"], init=True)
        container.start()
        results = at_once(lambda c: c.stop(timeout=5), lambda c: c.remove(force=True), key=container.id)
        assert results[1] is None
        assert set(errors(results)) <= {Conflict, ContainerNotFound}
        assert "removed" == container.status


def test_stop_and_stop(create, at_once):
    """Stops at once all succeed or say that it does not run; the exit code is right."""
    container = create()
    for _ in range(ROUNDS):
        container.start()
        results = at_once(*[lambda c: c.stop(timeout=5)] * 3, key=container.id)
        assert None in results
        assert set(errors(results)) <= {Conflict}
        assert ("exited", 143) == (container.status, container.exit_code)


@pytest.mark.parametrize("running", [False, True], ids=["idle", "running"])
def test_remove_and_remove(create, at_once, remains, running):
    """Removals at once: one succeeds at least, the others find nothing, and nothing is left."""
    for _ in range(ROUNDS):
        container = create()
        if running:
            container.start()
        results = at_once(*[lambda c: c.remove(force=True)] * 3, key=container.id)
        assert None in results
        assert set(errors(results)) <= {ContainerNotFound}
        assert [] == remains()


def test_start_and_remove(create, at_once, eventually, remains):
    """A start and a removal at once: the container runs or is gone, and what is left can be removed."""
    for _ in range(ROUNDS):
        container = create()
        started, removed = at_once(Container.start, Container.remove, key=container.id)
        if removed is None:
            assert isinstance(started, ContainerNotFound)
            assert "removed" == container.status
        else:
            assert isinstance(removed, Conflict)
            assert started is None
            assert "running" == container.status
            container.remove(force=True)
        assert [] == remains()


def test_start_and_forced_remove(create, at_once, remains):
    """A forced removal always succeeds beside a start."""
    for _ in range(ROUNDS):
        container = create()
        started, removed = at_once(Container.start, lambda c: c.remove(force=True), key=container.id)
        assert removed is None
        assert started is None or isinstance(started, cl.ContainerlibError)
        assert "removed" == container.status
        assert [] == remains()


def test_rename_to_one_name(create, at_once):
    """Of two containers renamed to one name at once one gets it."""
    for number in range(ROUNDS):
        one, two = create(), create()
        name = f"wanted-{number}"
        names = {one.id: one.name, two.id: two.name}
        barrier = threading.Barrier(2)

        def rename(container: Container, name: str = name, barrier: threading.Barrier = barrier) -> object:
            barrier.wait()
            try:
                return container.rename(name)
            except Conflict as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(rename, (one, two)))
        assert [Conflict] == errors(results)
        winner, loser = (one, two) if results[0] is None else (two, one)
        assert winner == Container.get(name)
        assert loser == Container.get(names[loser.id])
        assert (name, names[loser.id]) == (winner.name, loser.name)


def test_rename_and_rename(create, at_once):
    """A container renamed twice at once has one of the names, and the other is free."""
    for number in range(ROUNDS):
        container = create()
        at_once(
            lambda c, n=number: c.rename(f"left-{n}"),
            lambda c, n=number: c.rename(f"right-{n}"),
            key=container.id,
        )
        assert container.name in (f"left-{number}", f"right-{number}")
        assert container == Container.get(container.name)
        other = {f"left-{number}", f"right-{number}"} - {container.name}
        create(name=other.pop()).remove()


def test_creations_of_one_name(create, remains):
    """Of eight containers made with one name at once one is made, and nothing is left of the others."""
    engine = cl.Engine.current()
    barrier = threading.Barrier(8)

    def make(_: int) -> object:
        with engine:
            barrier.wait()
            try:
                return create(name="only")
            except Conflict as error:
                return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(make, range(8)))
    assert [Conflict] * 7 == errors(results)
    assert 1 == len(Container.list(all=True))
    Container.get("only").remove()
    assert [] == remains()


def test_lists_beside_runs(run, engine):
    """A list taken while containers come and go never fails and names only whole containers."""
    stop = threading.Event()
    failures: list[object] = []

    def watch() -> None:
        with cl.Engine(engine.root, engine.run_root):
            while not stop.is_set():
                try:
                    for container in Container.list(all=True):
                        assert container.status in ("created", "running", "exited", "removing", "removed")
                except BaseException as error:
                    failures.append(error)

    threads = [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = [run(["sh", "-c", f"exit {n}"], check=False).exit_code for n in range(30)]
    stop.set()
    for thread in threads:
        thread.join()
    assert list(range(30)) == codes
    assert [] == failures


def test_exec_and_stop(create, at_once):
    """A command run while the container is stopped ends with a code or an error that says why."""
    container = create()
    for _ in range(ROUNDS):
        container.start()
        done, _ = at_once(
            lambda c: c.exec(["sleep", "1000"], check=False), lambda c: c.stop(timeout=5), key=container.id
        )
        if isinstance(done, cl.Completed):
            assert 137 == done.exit_code
        else:
            assert isinstance(done, Conflict)
        assert ("exited", 143) == (container.status, container.exit_code)


def test_two_programs(busybox, program, create):
    """Two programs that start and remove one container at once get one success each."""
    create(name="shared")
    source = """
    sys.stdin.readline()
    try:
        cl.Container.get("shared").{call}
        print("done")
    except cl.Conflict:
        print("conflict")
    except cl.ContainerNotFound:
        print("nothing")
    """
    for call, others in (("start()", "conflict"), ("remove(force=True)", "nothing")):
        children = [program(source.format(call=call)) for _ in range(2)]
        for child in children:
            child.process.stdin.write(b"\n")
            child.process.stdin.flush()
        said = sorted(child.end().strip() for child in children)
        assert "done" in said
        assert set(said) <= {"done", others}
        if call == "start()":
            assert ["conflict", "done"] == said
