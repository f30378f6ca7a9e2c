# SPDX-License-Identifier: Apache-2.0
"""
What a monitor does by itself: restart policies and health checks.
"""

from __future__ import annotations

import os

import pytest

from containerlib import Conflict, Container, ContainerExited, ContainerTimeout

READY = "echo ready; while :; do sleep 0.01; done"


# ---- restart policies -------------------------------------------------------


def test_no_policy(create):
    """Without a policy a container that has failed stays ended."""
    container = create(["sh", "-c", "echo run; exit 1"])
    container.start()
    assert 1 == container.wait(timeout=20)
    assert ("exited", 0, "run\n") == (container.status, container.state.restart_count, container.logs())


def test_on_failure_tries_so_often(create, eventually):
    """on-failure:2 restarts twice after a failure, and then the last code counts."""
    container = create(["sh", "-c", "echo run >> /runs; echo run; exit 7"], restart="on-failure:2")
    container.start()
    eventually(lambda: container.status == "exited")
    assert (7, 2, "run\n" * 3) == (container.exit_code, container.state.restart_count, container.logs())


def test_on_failure_rests_after_success(create, eventually):
    """on-failure restarts until the program ends well."""
    script = "echo run; test -e /second && exit 0; touch /second; exit 1"
    container = create(["sh", "-c", script], restart="on-failure")
    container.start()
    eventually(lambda: container.status == "exited")
    assert (0, 1, "run\nrun\n") == (container.exit_code, container.state.restart_count, container.logs())


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_always(create, eventually, policy):
    """Always and unless-stopped restart whatever the code; a stop by hand overrules them."""
    container = create(
        ["sh", "-c", f"echo run; test -e /again && {{ {READY}; }}; touch /again"], restart=policy
    )
    container.start()
    container.wait_until(log="ready", timeout=20)
    assert "run\nrun\nready\n" == container.logs()
    assert 1 == container.state.restart_count
    os.kill(container.pid, 9)
    eventually(lambda: container.logs().count("ready") == 2)
    container.stop(timeout=0)
    assert ("exited", 137) == (container.status, container.exit_code)
    assert container.logs().count("ready") == 2


def test_stop_between_two_runs(create, eventually):
    """A container that waits for its next start is stopped at once."""
    container = create(["false"], restart="always")
    container.start()
    eventually(lambda: container.state.restart_count >= 3)
    eventually(lambda: container.status == "restarting")
    container.stop(timeout=5)
    assert ("exited", 1) == (container.status, container.exit_code)
    container.remove()


def test_remove_between_two_runs(create, eventually):
    """A container that waits for its next start is removed by force, and only so."""
    container = create(["false"], restart="always")
    container.start()
    eventually(lambda: container.state.restart_count >= 3)
    with pytest.raises(Conflict):
        container.remove()
    container.remove(force=True)
    assert "removed" == container.status


def test_kill_overrules_the_policy(create):
    """A container killed by hand is not restarted."""
    container = create(["sleep", "1000"], restart="always")
    container.start()
    container.kill()
    container.wait(timeout=20)
    assert "exited" == container.status


def test_policy_changes_while_it_runs(create, eventually):
    """An update of the policy counts at the next end."""
    container = create(["sh", "-c", READY])
    container.start()
    container.update(restart="always")
    os.kill(container.pid, 9)
    eventually(lambda: container.logs().count("ready") == 2)
    container.update(restart="no")
    os.kill(container.pid, 9)
    eventually(lambda: container.status == "exited")
    assert "no" == Container.get(container.id).config.restart.name


def test_a_restart_keeps_the_files(create, eventually):
    """A restarted container has what it wrote before."""
    container = create(
        ["sh", "-c", "echo x >> /f; test $(wc -l < /f) -ge 3 && exit 0; exit 1"], restart="on-failure"
    )
    container.start()
    eventually(lambda: container.status == "exited")
    assert (0, 2) == (container.exit_code, container.state.restart_count)


def test_auto_remove_contradicts_a_policy(create):
    """A container cannot both restart and remove itself."""
    with pytest.raises(ValueError, match="auto_remove"):
        create(restart="always", auto_remove=True)


# ---- health checks ----------------------------------------------------------


def check(script, **options):
    settings = {"interval": 0.05, "timeout": 5, "retries": 2, "start_period": 0}
    return {"healthcheck": {"test": ["CMD-SHELL", script]} | settings | options}


def test_healthy(start):
    """A container starts as starting and is healthy when the check ends well."""
    container = start(**check("test -e /ok && echo fine", retries=1000))
    assert "starting" == container.health
    container.exec(["touch", "/ok"])
    container.wait_until(healthy=True, timeout=20)
    assert "healthy" == container.health
    result = container.state.health_log[-1]
    assert (0, "fine\n") == (result.exit_code, result.output)
    found = container.inspect()["State"]["Health"]
    assert ("healthy", 0) == (found["Status"], found["FailingStreak"])
    assert {"Start", "End", "ExitCode", "Output"} == set(found["Log"][-1])
    assert [container] == Container.list(health="healthy")


def test_unhealthy(start, eventually):
    """As many failures in a row as retries make it unhealthy, and one success healthy again."""
    container = start(**check("test -e /ok || { echo sick; exit 1; }"))
    eventually(lambda: container.health == "unhealthy")
    assert container.state.health_streak >= 2
    assert "sick\n" in [result.output for result in container.state.health_log]
    container.exec(["touch", "/ok"])
    eventually(lambda: container.health == "healthy")
    assert 0 == container.state.health_streak
    assert "running" == container.status


def test_failures_in_the_start_period_do_not_count(start, eventually):
    """In the start period failures leave the container starting."""
    container = start(**check("exit 1", retries=1, start_period=1000, start_interval=0.05))
    eventually(lambda: len(container.state.health_log) >= 3)
    assert ("starting", 0) == (container.health, container.state.health_streak)


def test_a_check_that_hangs(start, eventually):
    """A check that takes too long is killed and has failed."""
    container = start(**check("exec sleep 1006", timeout=0.2, retries=1))
    eventually(lambda: container.health == "unhealthy")
    result = container.state.health_log[0]
    assert -1 == result.exit_code
    assert "timeout" in result.output
    container.stop(timeout=5)


def test_the_log_of_checks_is_short(start, eventually):
    """The last five results are kept, oldest first, their output cut."""
    container = start(**check("echo x >> /n; wc -l < /n; head -c 20000 /dev/zero | tr '\\0' y"))
    eventually(
        lambda: len(container.state.health_log) == 5 and container.state.health_log[0].output[0] != "1"
    )
    results = container.state.health_log
    numbers = [int(result.output.split("\n")[0]) for result in results]
    assert list(range(numbers[0], numbers[0] + 5)) == numbers
    assert all(len(result.output) <= 4096 for result in results)
    assert [r.started_ns for r in results] == sorted(r.started_ns for r in results)


def test_a_check_of_the_image(engine, busybox_rootfs):
    """An image's check is taken over, and NONE switches it off."""
    import containerlib as cl

    config = {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 50_000_000}}
    image = cl.Image.from_rootfs(busybox_rootfs, tag="checked", config=config)
    with cl.Container.run(image, ["sleep", "1000"], network="none", init=True) as container:
        container.wait_until(healthy=True, timeout=20)
    off = {"test": ["NONE"]}
    with cl.Container.run(image, ["sleep", "1000"], network="none", init=True, healthcheck=off) as container:
        assert container.health is None


# ---- readiness --------------------------------------------------------------


def test_wait_until_it_listens(start):
    """wait_until returns when something listens on the port inside."""
    container = start(["sh", "-c", "sleep 0.2; exec nc -l -p 8080"])
    container.wait_until(port=8080, timeout=20)


def test_wait_until_http(start):
    """wait_until returns when the path answers over HTTP."""
    container = start(["sh", "-c", "mkdir /www; echo hi > /www/index.html; exec httpd -f -p 8081 -h /www"])
    container.wait_until(http={"path": "/index.html", "port": 8081}, timeout=20)


def test_wait_until_it_exits(start):
    """A container that ends first raises at once, with its code and the log's tail."""
    container = start(["sh", "-c", "echo broken; exit 9"])
    with pytest.raises(ContainerExited, match="broken") as caught:
        container.wait_until(log="never printed", timeout=20)
    assert 9 == caught.value.exit_code


def test_wait_until_too_late(start):
    """A condition that never holds is a time-out that names it."""
    with pytest.raises(ContainerTimeout, match="never.* printed"):
        start().wait_until(log="never printed", timeout=0.1)
