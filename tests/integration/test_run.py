# SPDX-License-Identifier: Apache-2.0
"""
``containerlib.run``: a command, its streams, and what becomes of them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import socket

import pytest

import containerlib as cl


def test_the_two_streams_stay_apart(run):
    """What goes to stdout and to stderr comes back apart, with the code and the words of the command."""
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert ("out\n", "err\n", 3) == (done.stdout, done.stderr, done.exit_code)
    assert ("sh", "-c", "echo out; echo err >&2; exit 3") == done.args


def test_nothing_is_left(run, remains):
    """After run no container, name or directory is left."""
    run(["true"])
    assert [] == cl.Container.list(all=True)
    assert [] == remains()


@pytest.mark.parametrize("given", ["text é\n", b"text \xc3\xa9\n"], ids=["str", "bytes"])
def test_input_is_text_or_bytes(run, given):
    """Text and bytes go to standard input alike, and then it ends."""
    assert "text é\n" == run(["cat"], input=given).stdout


def test_input_is_a_file(run, tmp_path):
    """A file is read from where it stands, binary or text."""
    path = tmp_path / "input"
    path.write_bytes(b"first\nsecond\n")
    with path.open("rb") as file:
        file.readline()
        assert "second\n" == run(["cat"], input=file).stdout
    assert "third\n" == run(["cat"], input=io.StringIO("third\n")).stdout


def test_without_input_there_is_none(run):
    """Standard input is empty when no input is given."""
    assert "0\n" == run("sh -c 'cat | wc -c'").stdout


def test_bytes_stay_bytes(run):
    """With encoding None nothing is decoded."""
    done = run(["printf", r"\377\000"], encoding=None)
    assert (b"\xff\x00", b"") == (done.stdout, done.stderr)


def test_undecodable_text_is_replaced(run):
    """What is not text in the encoding becomes a replacement character, not an error."""
    assert "\ufffdx" == run(["printf", r"\377x"]).stdout
    assert "ÿx" == run(["printf", r"\377x"], encoding="latin-1").stdout


def test_input_that_nobody_reads(run):
    """A command that ends without reading its input is no error."""
    assert 0 == run(["true"], input=b"x" * 3_000_000).exit_code


def test_check_raises_with_everything(run):
    """A code other than 0 raises CommandFailed, which carries command, code and both streams."""
    with pytest.raises(cl.CommandFailed, match="exit code 7.*: oops") as caught:
        run(["sh", "-c", "echo out; echo oops >&2; exit 7"])
    error = caught.value
    assert (7, "out\n", "oops\n") == (error.exit_code, error.stdout, error.stderr)
    assert ("sh", "-c", "echo out; echo oops >&2; exit 7") == error.args
    assert error.args == error.command


def test_too_few_descriptors_are_a_kernel_error(run):
    """A process without descriptors to spare is told what could not be done, and nothing stays half made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run(["true"])  # what is kept open is open now
    used = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(4096) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[8], hard))
    try:
        with pytest.raises(cl.ContainerlibError) as caught:
            run(["true"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert errno.EMFILE == caught.value.errno
    assert 0 == run(["true"]).exit_code


def test_death_by_a_signal_is_128_and_more(run):
    """A command killed by a signal ends with 128 plus its number, with and without init."""
    assert 137 == run(["sh", "-c", "kill -9 $$"], init=True, check=False).exit_code
    assert 143 == run(["sh", "-c", "kill -15 $$"], init=True, check=False).exit_code


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_timeout_carries_the_output_so_far(run, remains, tty):
    """A command that takes too long is killed, and the error has what it printed until then."""
    with pytest.raises(cl.ContainerTimeout, match="not done after 0.5 s") as caught:
        run(["sh", "-c", "echo early; sleep 1000"], timeout=0.5, tty=tty)
    assert "early" == caught.value.stdout.strip()
    assert [] == remains()


def test_timeout_while_a_grandchild_holds_the_streams(run, remains):
    """Killing the first process ends all that it started, so the streams end too."""
    with pytest.raises(cl.ContainerTimeout):
        run(["sh", "-c", "sleep 1000 & exec sleep 1000"], timeout=0.3)
    assert [] == remains()


def test_large_output(run):
    """Fifty megabytes come through whole, on both streams at once."""
    command = "head -c 25000000 /dev/zero | tr '\\0' a & head -c 25000000 /dev/zero | tr '\\0' b >&2 & wait"
    done = run(["sh", "-c", command], encoding=None)
    assert hashlib.sha256(b"a" * 25_000_000).digest() == hashlib.sha256(done.stdout).digest()
    assert hashlib.sha256(b"b" * 25_000_000).digest() == hashlib.sha256(done.stderr).digest()


def test_large_input_and_output_at_once(run):
    """Input larger than any pipe goes in while the output comes out."""
    data = os.urandom(1 << 20) * 20
    assert data == run(["cat"], input=data, encoding=None).stdout


# ---- the process ------------------------------------------------------------


@pytest.mark.subids
def test_environment(run):
    """Variables are added to the image's and to PATH; HOME is the user's."""
    out = run(["env"], environment={"A": "1", "B": "x y=z"}, user="user", hostname="h").stdout
    lines = set(out.splitlines())
    assert {"A=1", "B=x y=z", "HOME=/home/user", "HOSTNAME=h"} <= lines
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)


def test_environment_from_a_file(run, tmp_path, monkeypatch):
    """A file of variables counts below those given; a bare name is taken from the caller."""
    monkeypatch.setenv("FROM_CALLER", "yes")
    path = tmp_path / "env"
    path.write_text("# a comment\nA=file\nB=file\nFROM_CALLER\n")
    out = run(["sh", "-c", "echo $A $B $FROM_CALLER"], env_file=path, environment={"B": "given"}).stdout
    assert "file given yes\n" == out


def test_working_dir(run):
    """The working directory is made when it is missing, and PWD says it."""
    assert "/tmp\n" == run(["pwd"], working_dir="/tmp").stdout
    assert "/new/dir\n" == run(["pwd"], working_dir="/new/dir").stdout


@pytest.mark.subids
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("user", "1000 1000 1000 29 50"),
        ("1000", "1000 1000 1000 29 50"),
        ("user:staff", "1000 50 50"),
        ("1234:5678", "1234 5678 5678"),
        ("1234", "1234 0 0"),
        ("0", "0 0 0"),
    ],
)
def test_user(run, user, expected):
    """Users and groups are names or numbers, and a known user has his groups."""
    out = run(["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"], user=user).stdout
    assert expected == out.strip()


@pytest.mark.subids
def test_additional_groups(run):
    """group_add takes names and numbers."""
    out = run(["id", "-G"], user="1234:1234", group_add=["audio", 4321]).stdout
    assert {"1234", "29", "4321"} == set(out.split())


def test_host_and_domain_name(run):
    """Host and domain name are the container's own, in the kernel and in its files."""
    out = run(
        ["sh", "-c", "hostname; cat /proc/sys/kernel/domainname /etc/hostname"],
        hostname="box",
        domainname="example.org",
    ).stdout
    assert ["box", "example.org", "box"] == out.split()
    assert "box" != socket.gethostname()


def test_host_name_is_the_short_id(create):
    """Without a name given the host name is the id's first twelve digits."""
    container = create(["hostname"])
    container.start()
    container.wait()
    assert container.short_id == container.logs().strip()


def test_labels(create):
    """Labels are there to be read and filtered by."""
    container = create(labels={"role": "db", "empty": ""})
    assert {"role": "db", "empty": ""} == dict(container.labels)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, ["echo", "a b"], "a b"),
        (None, "echo 'a b'", "a b"),
        (["echo", "entry"], ["cmd"], "entry cmd"),
        ("echo entry", None, "entry"),
        ("sh -c", "'echo $0' x", "x"),
    ],
)
def test_entrypoint_and_command(run, entrypoint, command, expected):
    """A command follows the entrypoint; text is split as a shell would."""
    assert expected == run(command, entrypoint=entrypoint).stdout.strip()


def test_command_of_the_image(engine, busybox_rootfs):
    """The image's entrypoint stays when a command is given; an entrypoint given drops the image's command."""
    config = {"Entrypoint": ["echo", "image"], "Cmd": ["default"]}
    image = cl.Image.from_rootfs(busybox_rootfs, tag="words", config=config)
    assert "image default\n" == cl.run(image, network="none").stdout
    assert "image given\n" == cl.run(image, ["given"], network="none").stdout
    assert "own\n" == cl.run(image, entrypoint=["echo", "own"], network="none").stdout


def test_terminal(run):
    """With tty all output comes as stdout, with a terminal's line ends, and TERM is set."""
    done = run(["sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo $TERM; echo err >&2"], tty=True)
    assert ("xterm\r\nerr\r\n", "") == (done.stdout, done.stderr)


def test_terminal_takes_input(run):
    """Input is typed on the terminal."""
    out = run(["sh", "-c", "read line; echo got $line"], tty=True, stdin_open=True, input="hello\n").stdout
    assert "got hello" in out


# ---- init -------------------------------------------------------------------


def test_init_reaps(run):
    """With init orphans are reaped: no zombie stays."""
    script = "for i in 1 2 3 4 5; do sh -c 'sleep 0.01 & exit'; done; sleep 0.2; ps -o stat,comm | grep -c ^Z"
    assert "0\n" == run(["sh", "-c", script], init=True, check=False).stdout


def test_init_hands_signals_on(start):
    """With init a signal reaches the command, whose code the container ends with."""
    container = start(["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"])
    container.wait_until(log="ready")
    container.kill("USR1")
    assert 9 == container.wait(timeout=20)


def test_without_init_the_command_is_process_1(run):
    """Without init the command itself is process 1, with init it is not."""
    assert "1\n" == run(["sh", "-c", "echo $$"]).stdout
    assert "2\n" == run(["sh", "-c", "echo $$"], init=True).stdout


@pytest.mark.parametrize(
    "options",
    [{"encoding": "klingon"}, {"input": 5}, {"input": "é", "encoding": "ascii"}, {"timeout": "1"}],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_runs(run, start, options):
    """
    A bad encoding, input or timeout is an error that names it; the command is
    not run, by run and exec alike.
    """
    name = "input" if options.get("encoding") == "ascii" else next(iter(options))
    with pytest.raises((cl.InvalidOption, TypeError), match=name):
        run(["true"], **options)
    with start() as container:
        with pytest.raises((cl.InvalidOption, TypeError), match=name):
            container.exec(["touch", "/tmp/ran"], **options)
        assert 1 == container.exec(["test", "-e", "/tmp/ran"], check=False).exit_code
