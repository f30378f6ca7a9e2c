# SPDX-License-Identifier: Apache-2.0
"""
``containerlib.run`` in programs of every kind: threads, forks, event loops,
odd descriptors and signal dispositions.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import containerlib as cl


def test_sixteen_threads_at_once(run, remains):
    """Sixteen threads run containers at once, each gets its own output and input back."""
    barrier = threading.Barrier(16)

    def one(number: int) -> str:
        barrier.wait()
        return run(["sh", "-c", f"cat; echo {number}"], input=f"in{number} ").stdout

    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(one, range(16)))
    assert [f"in{number} {number}\n" for number in range(16)] == outputs
    assert [] == remains()


def test_a_thread_that_started_a_container_may_end(engine, busybox):
    """A container belongs to the process, not to the thread that started it."""
    made: list[cl.Container] = []

    def make() -> None:
        # A thread starts with an empty context, so the engine is named.
        made.append(cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True, engine=engine))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with made[0] as container:
        assert "1\n" == container.exec(["sh", "-c", "echo 1"]).stdout
        assert "running" == container.status


def test_interrupt_cleans_up(busybox, program, remains):
    """Ctrl-C during run raises KeyboardInterrupt, and nothing is left of the container."""
    child = program(
        """
        reader, writer = os.pipe()
        class Input:
            def read(self, size=-1):
                print("running", flush=True)
                os.read(reader, 1)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            cl.run("busybox", ["sleep", "1000"], network="none", input=Input())
        except KeyboardInterrupt:
            print("interrupted", len(cl.Container.list(all=True)), flush=True)
        """
    )
    assert "running" == child.line()
    child.process.send_signal(signal.SIGINT)
    assert "interrupted 0\n" == child.end()
    assert [] == remains()


def test_interrupts_at_any_moment_leave_nothing(busybox, program, remains, eventually):
    """Interrupts that fall anywhere in a loop of runs leave no container and no process behind."""
    child = program(
        """
        import random
        caught = 0
        main = threading.get_ident()
        for number in range(30):
            timer = threading.Timer(random.random() * 0.02, lambda: signal.pthread_kill(main, signal.SIGINT))
            try:
                timer.start()
                while True:
                    cl.run("busybox", ["true"], network="none")
            except KeyboardInterrupt:
                caught += 1
            timer.join()
        left = [c for c in cl.Container.list(all=True)]
        print(caught, left, flush=True)
        """
    )
    assert "30 []\n" == child.end()
    # What was half removed when the interrupt came is for the next process to finish.
    assert "[]\n" == program("print(cl.Container.list(all=True))").end()
    eventually(lambda: not remains())


def test_a_forked_child_and_its_parent_both_run(program, busybox):
    """After a fork, both run containers; the child's end touches none of the parent's."""
    child = program(
        """
        import multiprocessing, warnings
        def work():
            with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True) as inner:
                return cl.run("busybox", ["echo", "child"], network="none").stdout + inner.status
        def report(queue):
            queue.put(work())
        with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True) as outer:
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=report, args=(queue,))
            process.start()
            print(work().split(), queue.get().split(), flush=True)
            process.join()
            print(process.exitcode, outer.status, outer.exec(["echo", "alive"]).stdout, flush=True)
        print(len(cl.Container.list(all=True)))
        """
    )
    assert "['child', 'running'] ['child', 'running']\n0 running alive\n\n0\n" == child.end()


def test_a_forked_child_does_not_keep_the_container(program, busybox, ended, eventually):
    """A forked child that outlives the owner does not keep the owner's container alive."""
    owner = program(
        """
        container = cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True,
                                     stop_grace_period=1)
        pid = os.fork()
        if pid == 0:
            signal.pause()
        print(pid, container.pid, container.id, flush=True)
        os._exit(0)
        """
    )
    forked, first, id_ = owner.line().split()
    try:
        owner.process.wait()
        assert ended(int(first))
        eventually(lambda: id_ not in [c.id for c in cl.Container.list(all=True)])
    finally:
        os.kill(int(forked), signal.SIGKILL)


def test_children_of_the_program_are_its_own(program, busybox):
    """An application's SIGCHLD handler and asyncio's child watcher get their own children, and no others."""
    child = program(
        """
        import asyncio
        seen = []
        signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
        async def main():
            def contained():
                return [cl.run("busybox", ["sh", "-c", "exit 3"], network="none", check=False).exit_code
                        for _ in range(10)]
            async def own():
                codes = []
                for _ in range(10):
                    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
                    codes.append(await process.wait())
                return codes
            return await asyncio.gather(asyncio.to_thread(contained), own())
        print(asyncio.run(main()) == [[3] * 10, [7] * 10])
        """
    )
    assert "True\n" == child.end()


def test_a_program_that_waits_for_any_child(program, busybox):
    """A program that reaps all children, or ignores SIGCHLD, gets right exit codes all the same."""
    child = program(
        """
        def reap(*_):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, reap)
        def code(n):
            return cl.run("busybox", ["sh", "-c", f"exit {n}"], network="none", check=False).exit_code
        codes = [code(n) for n in range(8)]
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        codes += [code(n) for n in range(8)]
        with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True) as container:
            codes.append(container.exec(["sh", "-c", "exit 9"], check=False).exit_code)
            container.stop(timeout=5)
            container.start()
        print(codes == [*range(8), *range(8), 9])
        """
    )
    assert "True\n" == child.end()


def test_signal_dispositions_are_not_inherited(program, busybox):
    """What the caller ignores or blocks is at its default inside."""
    child = program(
        """
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
        for init in (False, True):
            print(cl.run("busybox", ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], network="none",
                         init=init).stdout.split())
        with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True) as container:
            print(container.exec(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).stdout.split())
        """
    )
    zero = "0" * 16
    assert f"{['SigBlk:', zero, 'SigIgn:', zero]}\n" * 3 == child.end()


@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2)], ids=str)
def test_closed_standard_streams(program, busybox, tmp_path, closed):
    """A caller whose standard streams are closed gets the right output."""
    child = program(
        f"""
        for fd in {closed!r}:
            os.close(fd)
        results = []
        for input in (None, "in"):
            done = cl.run("busybox", ["sh", "-c", "cat; echo out; echo err >&2"], network="none", input=input)
            results.append((done.stdout, done.stderr))
        with cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True) as container:
            done = container.exec(["sh", "-c", "cat; echo out; echo err >&2"], input="x")
            results.append((done.stdout, done.stderr))
        open({str(tmp_path / "result")!r}, "w").write(repr(results))
        os._exit(0)
        """
    )
    child.end()
    expected = [("out\n", "err\n"), ("inout\n", "err\n"), ("xout\n", "err\n")]
    assert repr(expected) == (tmp_path / "result").read_text()


def test_the_callers_descriptors_do_not_leak(run, start):
    """However many descriptors the caller has, close-on-exec or not, the container has its three."""
    readers = []
    try:
        for _ in range(200):
            pair = os.pipe()
            readers += pair
            for fd in pair:
                os.set_inheritable(fd, True)
        listing = ["sh", "-c", "exec ls -1 /proc/self/fd"]
        # ls itself holds the directory that it lists as number 3.
        assert "0\n1\n2\n3\n" == run(listing).stdout
        assert "0\n1\n2\n3\n" == run(listing, tty=True).stdout.replace("\r", "")
        with start() as container:
            assert "0\n1\n2\n3\n" == container.exec(listing).stdout
            assert "0\n1\n2\n3\n" == container.exec(listing, tty=True).stdout.replace("\r", "")
            first = container.exec(["sh", "-c", "ls -1 /proc/1/fd; ls -1 /proc/2/fd"]).stdout.split()
            assert ["0", "1", "2"] == first
    finally:
        for fd in readers:
            os.close(fd)


def test_a_hundred_runs_leak_no_descriptor_and_no_process(run):
    """After many runs this process has the descriptors and children that it had before."""
    run(["true"])
    gc.collect()  # engines of earlier tests
    before = sorted(os.listdir("/proc/self/fd"))
    for number in range(50):
        run(["sh", "-c", f"exit {number % 3}"], check=False, input="x" if number % 2 else None)
    assert before == sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_interpreter_exit_ends_what_is_owned(program, busybox, ended, eventually, remains):
    """A program that just ends, its containers running, leaves none."""
    child = program(
        """
        container = cl.Container.run("busybox", ["sleep", "1000"], network="none", init=True)
        print(container.pid, flush=True)
        """
    )
    pid = int(child.line())
    child.end()
    assert ended(pid)
    eventually(lambda: not remains())


def test_a_fork_at_any_moment_holds_nothing_up(program, busybox):
    """Children forked by another thread while containers start keep no stream and no lock of theirs."""
    child = program(
        """
        import faulthandler, warnings
        faulthandler.dump_traceback_later(50, exit=True)  # what hangs is told
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        results, children = [], []
        def runs():
            with engine:
                for _ in range(15):
                    done = cl.run("busybox", ["cat"], input="x" * 100, network="none")
                    container = cl.Container.run("busybox", ["cat"], network="none")
                    container.wait()
                    container.remove()
                    results.append(done.stdout)
        thread = threading.Thread(target=runs)
        thread.start()
        while thread.is_alive():
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                signal.pause()
            children.append(pid)
            thread.join(0.004)
            if len(children) > 400:
                break
        thread.join()
        print(results == ["x" * 100] * 15, len(cl.Container.list(all=True)))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        """
    )
    assert "True 0\n" == child.end()
