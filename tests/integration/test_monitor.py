# SPDX-License-Identifier: Apache-2.0
"""
A monitor under load: many clients, slow ones, those who leave in the middle.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from containerlib.container import Container
from containerlib.errors import ContainerTimeout
from containerlib.runtime import cgroups
from containerlib.runtime.client import MonitorClient
from containerlib.shim import Attach, Msg

# Nothing inside handles SIGTERM: as the first process it would be ignored.
HOST = {"network": "none", "stop_signal": "SIGKILL"}


def start(*script: str, **options) -> Container:
    return Container.run("host", ["sh", "-c", "; ".join(script)], **HOST, **options)


def needs(controller: str) -> None:
    """
    Skip where no control group can be made for it.
    """
    hierarchy = cgroups.detect().of(controller)
    if hierarchy is None or not hierarchy.writable:
        pytest.skip(f"no cgroup controller {controller} that this user may write to")


def connect(engine, container: Container) -> MonitorClient:
    return MonitorClient.connect(engine.run_root / container.id)


def until_quiet(receive: Callable[[], object]) -> list:
    """
    What comes until nothing comes any more.
    """
    received = []
    with contextlib.suppress(ContainerTimeout):
        while (piece := receive()) is not None:
            received.append(piece)
    return received


def test_input_and_output_at_once_lose_nothing(engine):
    """
    What is written faster than it is read comes back whole, however the two ends get in each other's way.
    """
    sent = os.urandom(1_000_000) * 16
    with start("cat", stdin_open=True) as container, container.attach() as attachment:

        def feed() -> None:
            attachment.stdin.write(sent)
            attachment.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        received = b"".join(piece for _, piece in attachment)
        feeder.join()

    assert len(sent) == len(received)
    assert sent == received


def test_input_of_a_client_that_leaves_at_once_arrives(engine):
    """
    A closed connection is the end of the input only after all that was sent before it.
    """
    with start("read line", "sleep 0.1", "wc -c", stdin_open=True) as container:
        with connect(engine, container) as client:
            client.attach(Attach.STDIN)
            client.send(Msg.STDIN, 0, b"\n")
            for _ in range(3):
                client.send(Msg.STDIN, 0, bytes(60_000))
            client.send(Msg.STDIN_EOF)
        container.wait(timeout=30)

        assert "180000\n" == container.logs()


def test_input_that_a_restart_has_lost_holds_nobody(engine):
    """
    Who wrote more than a process read before it was restarted can write to the next one.
    """
    with start("read line", "echo got $line", "sleep 1000", stdin_open=True) as container:
        with connect(engine, container) as client:
            client.attach(Attach.STDIN | Attach.STDOUT)
            client.send(Msg.STDIN, 0, b"first\n")
            while client.receive(20).type != Msg.STDOUT:
                pass
            for _ in range(4):  # more than a pipe and the monitor hold
                client.send_now(Msg.STDIN, 0, b"x" * 60_000)
            container.restart(timeout=0)
            while client.receive(20).type != Msg.STARTED:
                pass
            client.send(Msg.STDIN, 0, b"\nsecond\n")
            while (message := client.receive(20)).type != Msg.STDOUT:
                pass

        assert message.payload.startswith(b"got")


def test_a_slow_client_that_detaches_costs_the_others_nothing(engine):
    """
    Those who read get each byte once when the one for whom all waited leaves.
    """
    count = 100_000
    with (
        start("read line", f"seq 1 {count}", stdin_open=True) as container,
        connect(engine, container) as slow,
        container.attach() as attachment,
    ):
        slow.attach(Attach.STDOUT)
        slow.request(Msg.WATCH, 0)
        attachment.stdin.write(b"\n")
        received = until_quiet(lambda: attachment.read(timeout=0.3))
        slow.send(Msg.DETACH)
        received += attachment

    expected = "".join(f"{number}\n" for number in range(1, count + 1)).encode()
    assert expected == b"".join(piece for _, piece in received)


def test_every_question_is_answered(engine):
    """
    A client with a full queue gets its answers once it reads.
    """
    with start("yes") as container, connect(engine, container) as client, container.attach() as other:
        client.attach(Attach.STDOUT)
        # The other one starves when this one's queue is full.
        until_quiet(lambda: other.read(timeout=0.3))
        for _ in range(20):
            client.send(Msg.WATCH, 0, timeout=10)
        client.send(Msg.DETACH)
        answers = 0
        while answers < 22:
            answers += client.receive(10).type == Msg.ACK


def test_a_crowd_of_clients_is_served(engine):
    """
    A hundred that wait for the end leave room for the one who brings it.
    """
    with start("sleep 1000") as container:
        crowd = [connect(engine, container) for _ in range(100)]
        try:
            container.stop(timeout=0)
            codes = {client.wait_exit(20).exit_code for client in crowd}
        finally:
            for client in crowd:
                client.close()

    assert {137} == codes


def test_more_clients_than_there_is_room_for_wait(engine):
    """
    The last ones are let in when the first ones leave; nobody is told that the container is gone.
    """
    with start("sleep 1000") as container:
        crowd = [connect(engine, container) for _ in range(520)]
        try:
            for client in crowd[:20]:
                client.close()
            for client in crowd[-20:]:
                client.request(Msg.WATCH, 0, timeout=20)
        finally:
            for client in crowd:
                client.close()


def test_out_of_memory_is_told_of_the_last_run(engine, eventually):
    """
    A container that was killed for its memory once, and stopped after a restart, was not killed for it.
    """
    needs("memory")
    grow = "test -e /tmp/again && exec sleep 1000; touch /tmp/again; exec tail /dev/zero"
    options = {"mem_limit": "30m", "memswap_limit": "30m", "restart": "always"}
    with start(grow, **options) as container:
        eventually(lambda: container.inspect()["RestartCount"] and container.status == "running")
        container.stop(timeout=0)

        assert not container.inspect()["State"]["OOMKilled"]


def test_health_checks_of_a_container_with_a_score(engine, eventually):
    """
    A health check runs with the out-of-memory score of its container.
    """
    check = {"test": ["CMD", "grep", "-x", "500", "/proc/self/oom_score_adj"], "interval": 0.05}
    with start("sleep 1000", oom_score_adj=500, healthcheck=check) as container:
        eventually(lambda: container.health != "starting")

        assert "healthy" == container.health


def test_a_paused_container_is_not_checked(engine, eventually):
    """
    A pause, however long, makes nothing unhealthy.
    """
    needs("freezer")
    # The check that runs when the pause begins is the one failure allowed.
    check = {"test": ["CMD", "true"], "interval": 0.02, "timeout": 0.1, "retries": 2}
    with start("sleep 1000", healthcheck=check) as container, connect(engine, container) as client:
        eventually(lambda: container.health == "healthy")
        container.pause()
        client.watch()
        types = {message.type for message in until_quiet(lambda: client.receive(1))}

        assert types <= {Msg.ACK, Msg.GREW}
        assert "healthy" == container.health
        container.unpause()


def test_a_hundred_thousand_arguments(engine):
    """
    A command may have as many arguments as the kernel takes.
    """
    with Container.run("host", ["sh", "-c", "echo $#", *(["x"] * 100_001)], **HOST) as container:
        container.wait()

        assert "100000\n" == container.logs()
