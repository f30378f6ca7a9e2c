# SPDX-License-Identifier: Apache-2.0
"""
Children of the helper's starter: several threads, a fork.
"""

from __future__ import annotations

import os
import subprocess
import threading

from containerlib.shim import Child


def _child(command: str) -> tuple[Child, subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE)
    return Child(process.pid, os.pidfd_open(process.pid)), process


def test_threads_that_wait_and_poll_see_one_end() -> None:
    """
    Threads that wait for a child while others poll it all get its status, and
    its descriptor is closed once.
    """
    for _ in range(5):
        child, process = _child("read x; exit 7")
        seen: list[int | None] = []

        def wait(child: Child = child, seen: list[int | None] = seen) -> None:
            seen.append(child.wait())

        def poll(child: Child = child, seen: list[int | None] = seen) -> None:
            while (status := child.poll()) is None:
                pass
            seen.append(status)

        threads = [threading.Thread(target=target) for target in (wait, poll, wait, poll)]
        for thread in threads:
            thread.start()
        assert process.stdin is not None
        process.stdin.close()
        for thread in threads:
            thread.join()
        process.returncode = 7  # it was collected here
        assert seen == [7, 7, 7, 7]
        assert child.pidfd == -1


def test_a_poll_does_not_wait_for_a_waiter() -> None:
    """
    While a thread waits for a child, a poll answers at once that it runs.
    """
    child, process = _child("read x")
    thread = threading.Thread(target=child.wait)
    thread.start()
    assert child.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    thread.join()
    process.returncode = 1
    assert child.poll() == child.status
