# SPDX-License-Identifier: Apache-2.0
"""
Interrupts that fall where a call waits for somebody else.
"""

from __future__ import annotations

import threading
from pathlib import Path


def test_an_interrupted_start_ends_what_it_started(busybox, program, remains):
    """
    Interrupts at any moment of the start of commands that never end come
    through, and leave neither container nor process.
    """
    child = program(
        """
        import random
        armed = False
        def interrupt(*_):
            if armed:
                raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        caught = 0
        for call in (cl.run, cl.Container.run):
            for number in range(20):
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.01))
                    call("busybox", ["sleep", "1000"], network="none", init=True)
                    while True:
                        signal.pause()
                except KeyboardInterrupt:
                    armed = False
                    caught += 1
        for container in cl.Container.list():
            container.remove(force=True)  # started before the interrupt came
        print(caught, len(cl.Container.list(all=True)), flush=True)
        """
    )
    assert "40 0\n" == child.end()
    # What was half removed when the interrupt came is for the next process to finish.
    assert "[]\n" == program("print(cl.Container.list(all=True))").end()
    assert [] == remains()


def test_an_interrupt_ends_the_grace_period_of_a_block(busybox, program, remains):
    """
    An interrupt while a block's container is stopped removes it at once.
    """
    child = program(
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with cl.Container.run(
                "busybox", ["sh", "-c", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done"],
                network="none", stop_grace_period=1000,
            ) as container:
                container.wait_until(log="ready")
                threading.Thread(target=lambda: (
                    container.wait_until(log="asked", timeout=None), os.kill(os.getpid(), signal.SIGINT)
                ), daemon=True).start()
        except KeyboardInterrupt:
            print("interrupted", container.status, flush=True)
        """
    )
    assert "interrupted removed\n" == child.end()
    assert [] == remains()


def test_a_process_closed_before_its_end_ends_and_is_reaped(start):
    """
    Closing a process that runs ends it; its helper is no zombie for longer
    than until the next process.
    """
    with start() as container:
        process = container.popen(["sleep", "1000"])
        process.close()
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        while len(children.read_text().split()) > 1:  # the monitor stays
            container.exec(["true"])
        assert ["sleep", "1000"] not in [
            list(info.args) for info in container.top() if info.pid == process.pid
        ]
