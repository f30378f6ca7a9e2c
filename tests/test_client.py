# SPDX-License-Identifier: Apache-2.0
"""
The monitor's client and the attachment, over real sockets.
"""

from __future__ import annotations

import array
import errno
import gc
import os
import socket
import struct
import threading

import pytest

from containerlib.errors import ContainerTimeout, ExitCodeLost, KernelError
from containerlib.runtime.attachment import Attachment
from containerlib.runtime.client import MonitorClient, MonitorGone
from containerlib.shim import MSG_MAX, Attach, Msg, Restart


class Peer:
    """
    The monitor's end of a connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def send(self, type: int, arg: int = 0, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([struct.pack("ii", type, arg) + payload], rights)

    def receive(self) -> tuple[int, int, bytes]:
        data = self.socket.recv(8 + MSG_MAX)
        return (*struct.unpack_from("ii", data), data[8:]) if data else (0, 0, b"")

    def answer(self, *replies: tuple[int, int]) -> threading.Thread:
        def run() -> None:
            self.request = self.receive()
            for reply in replies:
                self.send(*reply)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


@pytest.fixture(name="pair")
def _pair():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = MonitorClient(near.detach(), subject="web")
    yield client, Peer(far)
    client.close()
    far.close()


# ---- connecting -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["descriptor", "path"])
def test_connect_reaches_a_socket_of_any_depth(tmp_path, kind):
    """
    A run directory whose path is longer than a socket's name may be is reached.
    """
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    fd = os.open(directory, os.O_PATH)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"/proc/self/fd/{fd}/attach.sock")
    listener.listen()
    with MonitorClient.connect(fd if kind == "descriptor" else directory) as client:
        accepted, _ = listener.accept()
        Peer(accepted).send(Msg.STARTED, 7)
        message = client.receive(10)
        assert message is not None
        assert (Msg.STARTED, 7, b"") == (message.type, message.arg, message.payload)
        assert not os.get_inheritable(client.fileno())
        accepted.close()
    listener.close()
    os.close(fd)


def test_connect_without_a_monitor(tmp_path):
    """
    No directory, no socket, and a socket without a listener all mean that none runs.
    """
    with pytest.raises(MonitorGone, match="db: not running"):
        MonitorClient.connect(tmp_path / "none", subject="db")
    with pytest.raises(MonitorGone, match="db: not running"):
        MonitorClient.connect(tmp_path, subject="db")
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(tmp_path / "attach.sock"))
    stale.close()
    with pytest.raises(MonitorGone, match="db: not running"):
        MonitorClient.connect(tmp_path, subject="db")


def test_connect_gives_up_on_a_full_queue(tmp_path):
    """
    A monitor that accepts nobody is a timeout, not a hang.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach.sock"))
    listener.listen(0)
    with MonitorClient.connect(tmp_path), pytest.raises(ContainerTimeout, match=r"within 0.02 s"):
        MonitorClient.connect(tmp_path, timeout=0.02)
    listener.close()


@pytest.mark.root
def test_connect_refuses_another_users_socket(tmp_path):
    """
    A socket that another user listens on is not the monitor's.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "attach.sock"))
    os.seteuid(65534)
    try:
        listener.listen()  # the kernel notes the peer's identity now
    finally:
        os.seteuid(0)
    with pytest.raises(KernelError, match="belongs to user 65534") as caught:
        MonitorClient.connect(tmp_path)
    assert errno.EPERM == caught.value.errno
    listener.close()


# ---- messages ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda c: c.stop(), (Msg.STOP, -1, struct.pack("i", 0))),
        (lambda c: c.stop(grace=1.5, signal=15), (Msg.STOP, 1500, struct.pack("i", 15))),
        (lambda c: c.kill(9), (Msg.KILL, 9, b"")),
        (lambda c: c.restart(grace=0), (Msg.RESTART, 0, b"")),
        (
            lambda c: c.set_policy(Restart.ON_FAILURE, 3),
            (Msg.POLICY, 0, struct.pack("ii", Restart.ON_FAILURE, 3)),
        ),
    ],
)
def test_requests_wait_for_their_answer(pair, call, expected):
    """
    Each request has its form on the wire and returns when it is acknowledged.
    """
    client, peer = pair
    thread = peer.answer((Msg.STARTED, 5), (Msg.ACK, 0))
    call(client)
    thread.join()
    assert expected == peer.request
    message = client.receive(0)
    assert message is not None
    assert Msg.STARTED == message.type


def test_answers_are_told_apart(pair):
    """
    The answer to a message that nobody waits for is not taken for another's.
    """
    client, peer = pair
    client.resize(24, 80)
    client.watch()
    thread = peer.answer((Msg.ACK, errno.ENOTTY), (Msg.ACK, 0), (Msg.ACK, errno.ESRCH))
    with pytest.raises(KernelError) as caught:
        client.kill(15)
    thread.join()
    assert errno.ESRCH == caught.value.errno


def test_refused_request_carries_errno(pair):
    """
    A refusal names the container, the request and the kernel's reason.
    """
    client, peer = pair
    thread = peer.answer((Msg.ACK, errno.ESRCH))
    with pytest.raises(KernelError, match=r"web: kill refused.*No such process") as caught:
        client.kill(15)
    thread.join()
    assert errno.ESRCH == caught.value.errno


def test_request_to_a_monitor_that_leaves(pair):
    """
    A monitor that goes without an answer is told apart from one that is slow.
    """
    client, peer = pair
    with pytest.raises(ContainerTimeout, match=r"sent nothing within 0.01 s"):
        client.kill(15, timeout=0.01)
    peer.receive()
    peer.socket.close()
    with pytest.raises(MonitorGone):
        client.kill(15)


def test_messages_sent_before_the_end_are_received(pair):
    """
    What the monitor sent last is received although it left messages of ours unread.
    """
    client, peer = pair
    client.resize(24, 80)
    peer.send(Msg.EXITED, 3)
    peer.send(Msg.ENDED)
    peer.socket.close()
    state = client.wait_exit(10)
    assert state is not None
    assert 3 == state.exit_code
    message = client.receive(10)
    assert message is not None
    assert Msg.ENDED == message.type
    assert client.receive(10) is None
    assert client.ended


def test_messages_sent_before_closing_are_delivered(pair):
    """
    What was sent last reaches the monitor although messages of its were left unread.
    """
    client, peer = pair
    peer.send(Msg.STDOUT, 0, b"unread")
    client.send(Msg.STDIN_EOF)
    client.close()
    assert (Msg.STDIN_EOF, 0, b"") == peer.receive()
    assert (0, 0, b"") == peer.receive()


def test_wait_exit_times_out_and_ends(pair):
    """
    Waiting ends with the time given, or with the monitor.
    """
    client, peer = pair
    with pytest.raises(ContainerTimeout, match=r"web: still running after 0.01 s"):
        client.wait_exit(0.01)
    peer.socket.close()
    assert client.wait_exit(10) is None


def test_descriptors_ride_along(pair):
    """
    A descriptor in a message is open here and not inherited.
    """
    client, peer = pair
    reader, writer = os.pipe()
    peer.send(Msg.TERMINAL, 0, b"", (writer,))
    os.close(writer)
    message = client.receive(10)
    assert message is not None
    (fd,) = message.fds
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    os.close(fd)
    assert b"x" == os.read(reader, 10)
    os.close(reader)


def test_descriptors_nobody_took_are_closed(pair):
    """
    Descriptors in messages that are dropped do not leak.
    """
    client, peer = pair
    reader, writer = os.pipe()
    peer.send(Msg.TERMINAL, 0, b"", (writer,))
    os.close(writer)
    peer.socket.close()
    assert client.wait_exit(10) is None
    assert b"" == os.read(reader, 1)
    os.close(reader)


def test_sending_waits_for_room(pair):
    """
    A full queue is a timeout; when the monitor reads, the message goes.
    """
    client, peer = pair
    while client.send_now(Msg.STDIN, 0, b"x" * 1000):
        pass
    with pytest.raises(ContainerTimeout, match=r"took no message within 0.01 s"):
        client.send(Msg.STDIN, 0, b"y", timeout=0.01)
    thread = threading.Thread(target=lambda: [peer.receive() for _ in range(100)])
    thread.start()
    client.send(Msg.STDIN, 0, b"y", timeout=10)
    client.close()
    thread.join()


def test_too_large_payload_is_refused(pair):
    """
    One message has a bound, named in the error.
    """
    with pytest.raises(ValueError, match=str(MSG_MAX)):
        pair[0].send(Msg.STDIN, 0, bytes(MSG_MAX + 1))


def test_unclosed_client_warns():
    """
    A connection that is dropped open says so.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = MonitorClient(near.detach(), subject="web")
    with pytest.warns(ResourceWarning, match="MonitorClient of web"):
        del client
        gc.collect()
    assert b"" == far.recv(1)
    far.close()


# ---- attachment -------------------------------------------------------------


@pytest.fixture(name="attached")
def _attached(pair):
    client, peer = pair
    with Attachment(client) as attachment:
        assert (Msg.ATTACH, Attach.STDIN | Attach.STDOUT | Attach.STDERR, b"") == peer.receive()
        peer.send(Msg.ACK)
        yield attachment, peer


def test_attachment_gives_pieces_in_order(attached):
    """
    Iteration gives both streams' pieces as they came, then ends with the exit code.
    """
    attachment, peer = attached
    peer.send(Msg.STDOUT, 0, b"out")
    peer.send(Msg.STDERR, 0, b"err")
    peer.send(Msg.GREW)
    peer.send(Msg.STDOUT, 0, b"more")
    peer.send(Msg.EXITED, 5)
    assert [("stdout", b"out"), ("stderr", b"err"), ("stdout", b"more")] == list(attachment)
    assert 5 == attachment.exit_code
    assert 5 == attachment.wait()
    assert attachment.finished


def test_attachment_streams_are_files(attached):
    """
    Each stream reads like a binary file; the other's bytes are kept.
    """
    attachment, peer = attached
    peer.send(Msg.STDERR, 0, b"warning\n")
    peer.send(Msg.STDOUT, 0, b"one\ntw")
    peer.send(Msg.STDOUT, 0, b"o\nthree")
    peer.send(Msg.EXITED)
    assert b"one\n" == attachment.stdout.readline()
    assert [b"two\n", b"three"] == list(attachment.stdout)
    assert b"warning\n" == attachment.stderr.read()


def test_two_threads_read_a_stream_each(attached):
    """
    Threads on both streams each get all of theirs.
    """
    attachment, peer = attached
    found: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: getattr(attachment, name).read()}))
        for name in ("stdout", "stderr")
    ]
    for thread in threads:
        thread.start()
    for number in range(200):
        peer.send(Msg.STDOUT if number % 3 else Msg.STDERR, 0, b"%d," % number)
    peer.send(Msg.EXITED)
    for thread in threads:
        thread.join()
    assert b"".join(b"%d," % n for n in range(200) if n % 3) == found["stdout"]
    assert b"".join(b"%d," % n for n in range(200) if not n % 3) == found["stderr"]


def test_close_wakes_a_reading_thread(attached):
    """
    Closing from another thread ends a read that waits.
    """
    attachment, _ = attached
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(attachment.stdout.read()))
    thread.start()
    while not attachment._receiver.receiving:
        pass
    attachment.close()
    thread.join()
    assert [b""] == found


def test_standard_input_goes_in_pieces(attached):
    """
    Input of any size arrives whole, its end once.
    """
    attachment, peer = attached
    data = os.urandom(3 * MSG_MAX + 5)
    received: list[tuple[int, int, bytes]] = []

    def run() -> None:
        while not received or received[-1][0] == Msg.STDIN:
            received.append(peer.receive())

    thread = threading.Thread(target=run)
    thread.start()
    assert len(data) == attachment.stdin.write(data)
    attachment.stdin.close()
    attachment.stdin.close()
    thread.join()
    assert data == b"".join(payload for _, _, payload in received)
    assert Msg.STDIN_EOF == received[-1][0]
    with pytest.raises(ValueError, match="closed"):
        attachment.stdin.write(b"x")


def test_closing_an_attachment_ends_no_input(attached):
    """
    Leaving is said, and is not an end of file for the process.
    """
    attachment, peer = attached
    attachment.close()
    assert (Msg.DETACH, 0, b"") == peer.receive()
    assert (0, 0, b"") == peer.receive()
    assert attachment.closed


def test_leaving_waits_until_input_was_read(attached):
    """
    Closing after input returns when the monitor has read all of it, whatever it sends meanwhile.
    """
    attachment, peer = attached
    attachment.stdin.write(b"x")
    received: list[tuple[int, int, bytes]] = []

    def monitor() -> None:
        received.append(peer.receive())
        peer.send(Msg.STDOUT, 0, b"unread")
        received.append(peer.receive())
        peer.send(Msg.ACK)

    thread = threading.Thread(target=monitor)
    thread.start()
    attachment.close()
    assert [Msg.STDIN, Msg.DETACH] == [type for type, _, _ in received]
    thread.join()


def test_attachment_resizes(attached):
    """
    A size is one message.
    """
    attachment, peer = attached
    attachment.resize(50, 132)
    assert (Msg.RESIZE, 50 << 16 | 132, b"") == peer.receive()


def test_attachment_timeouts(attached):
    """
    Reading with a timeout raises; reading at once gives None.
    """
    attachment, peer = attached
    assert attachment.read_now() is None
    with pytest.raises(ContainerTimeout, match=r"printed nothing within 0.01 s"):
        attachment.read(0.01)
    peer.send(Msg.STDOUT, 0, b"x")
    assert ("stdout", b"x") == attachment.read_now()
    assert not attachment.finished


def test_attachment_to_a_dead_monitor(attached):
    """
    Output ends when the monitor is killed, and no exit code is made up.
    """
    attachment, peer = attached
    peer.socket.close()
    assert attachment.read() is None
    assert attachment.exit_code is None
    with pytest.raises(ExitCodeLost):
        attachment.wait()


def test_attached_from_the_start_asks_for_nothing(pair):
    """
    The connection that a container was started with needs no request.
    """
    client, peer = pair
    with Attachment(client, stderr=False, stdin=False, request=False) as attachment:
        assert attachment.stdin is None
        assert attachment.stderr is None
        peer.send(Msg.STDOUT, 0, b"x")
        assert ("stdout", b"x") == attachment.read()


def test_unclosed_attachment_warns():
    """
    An attachment that is dropped open says so.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    attachment = Attachment(MonitorClient(near.detach(), subject="web"))
    with pytest.warns(ResourceWarning, match="Attachment to web"):
        del attachment
        gc.collect()
    far.close()
