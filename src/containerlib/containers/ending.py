# SPDX-License-Identifier: Apache-2.0
"""
Stopping and removing containers, and sweeping what dead owners left.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib.containers import observing, starting
from containerlib.errors import Conflict, ContainerlibError, ContainerNotFound, ContainerTimeout, CorruptState
from containerlib.runtime import cgroups
from containerlib.runtime.client import MonitorClient, MonitorGone
from containerlib.runtime.failures import start_error
from containerlib.shim import Msg, decode_error, forks
from containerlib.store import makers

if TYPE_CHECKING:
    from containerlib.engine import Engine


def connect(engine: Engine, id: str) -> MonitorClient:
    """
    A connection to the container's monitor.

    Raises:
        MonitorGone: It does not run.
    """
    run = engine.store.run_fd()
    try:
        fd = os.open(id, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=run)
    except FileNotFoundError:
        raise MonitorGone(f"container {id[:12]} is not running", subject=id) from None
    try:
        return MonitorClient.connect(fd, subject=id[:12])
    finally:
        os.close(fd)


def not_running(name: str, status: str, doing: str) -> Conflict:
    """
    The error of a call that needs a running container.
    """
    return Conflict(f"container {name} is {status}: only a running container can be {doing}", subject=name)


def stop(engine: Engine, id: str, *, timeout: float | None, signal: int = 0, patience: float = 30.0) -> None:
    """
    Ask the first process to end, kill it after *timeout* seconds (None: the
    container's own grace period), and wait for the end.
    """
    with connect(engine, id) as client:
        client.stop(grace=timeout, signal=signal)
        try:
            client.wait_exit(timeout=None if timeout is None else timeout + patience)
        except MonitorGone:
            return
        _wait_for_monitor(client)
    starting.forget(id)


def restart(engine: Engine, id: str, *, timeout: float | None, patience: float = 30.0) -> None:
    """
    Let the monitor stop the first process and start it anew.

    Raises:
        MonitorGone: It does not run.
    """
    with connect(engine, id) as client:
        client.restart(grace=timeout)
        limit = None if timeout is None else timeout + patience
        while (message := client.receive(limit)) is not None:
            if message.type == Msg.STARTED:
                return
            if message.type == Msg.ERROR:
                config = observing.read_config(engine, id)
                raise start_error(
                    decode_error(message.payload),
                    subject=config.name,
                    image=config.image,
                    path=config.environment.get("PATH"),
                )
    raise MonitorGone(f"container {id[:12]} ended while it was restarted", subject=id)


def _wait_for_monitor(client: MonitorClient, timeout: float = 30.0) -> None:
    """
    Until the monitor has cleaned up and left, so that what follows finds the
    container at rest.
    """
    with contextlib.suppress(MonitorGone, ContainerTimeout):
        while not client.ended:
            client.receive(timeout)


def kill(engine: Engine, id: str, signal: int) -> None:
    """
    Send a signal to the first process.
    """
    with connect(engine, id) as client:
        client.kill(signal)


def remove(engine: Engine, id: str, *, force: bool) -> None:
    """
    Remove the container; with *force* also one that runs, or is damaged.

    Raises:
        Conflict: It runs and *force* is false.
    """
    stopped = 0
    while True:
        try:
            fd = starting.lock_state(engine, id, doing="removed")
            break
        except Conflict as error:
            if not force:
                raise Conflict(f"{error.args[0]}: stop it first, or use force=True", subject=id) from None
            if stopped == 5:  # somebody starts it again and again
                raise
            stopped += 1
            with contextlib.suppress(MonitorGone):
                stop(engine, id, timeout=0)
        except ContainerNotFound:
            if stopped:
                return  # one that removes itself
            raise
        except CorruptState:
            if not force:
                raise
            _delete(engine, id)
            return
    try:
        end_remains(engine, id, fd)
        _delete(engine, id)
    finally:
        forks.close(fd)


def end_remains(engine: Engine, id: str, state_fd: int) -> None:
    """
    Processes and groups that a killed monitor may have left, even one that
    was killed before it wrote its first word.
    """
    try:
        record = observing.read_record(state_fd, id)
        config = observing.read_config(engine, id)
    except CorruptState:
        left = cgroups.find(id)
    else:
        observing.end_orphan(record)
        left = observing.directories(engine, id, config)
    if left:
        cgroups.kill(left)
        cgroups.remove(left)


def _delete(engine: Engine, id: str) -> None:
    starting.forget(id)
    run = engine.store.run_fd()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"/proc/self/fd/{run}/{id}"):
            os.unlink(f"{id}/{name}", dir_fd=run)
        os.rmdir(id, dir_fd=run)
    engine.store.containers.remove(id, userns_fd=engine.userns_fd() if engine.rootless else None)


def sweep_once(engine: Engine) -> None:
    """
    The first use of an engine in a process sweeps.
    """
    if not engine.swept:
        engine.swept = True
        sweep(engine)


def sweep(engine: Engine) -> list[str]:
    """
    Remove owned containers whose owner is gone, and what is half-made or
    half-removed; returns ids and names.
    """
    swept = engine.store.containers.sweep(userns_fd=engine.userns_fd() if engine.rootless else None)
    ids = engine.store.containers.ids()
    for id_ in ids:
        with contextlib.suppress(ContainerlibError, OSError):
            if _is_abandoned(engine, id_):
                remove(engine, id_, force=True)
                swept.append(id_)
    return swept


def _is_abandoned(engine: Engine, id: str) -> bool:
    """
    Whether the owner is dead and nobody is ending the container.

    A live monitor ends it itself, with the grace period that it was given.
    """
    fd = observing.open_state(engine, id)
    try:
        owner = observing.read_owner(fd)
        return bool(owner) and not makers.is_alive(owner) and not observing.is_locked(fd)
    finally:
        os.close(fd)


def prune(engine: Engine) -> list[str]:
    """
    Remove all containers that do not run; returns their ids.
    """
    removed = []
    for id_ in engine.store.containers.ids():
        with contextlib.suppress(Conflict, ContainerNotFound):
            state = observing.observe(engine, id_)
            if state.status in ("created", "exited", "dead"):
                remove(engine, id_, force=False)
                removed.append(id_)
    return removed
