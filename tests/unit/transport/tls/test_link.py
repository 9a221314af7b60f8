"""Links: whole messages or a named error, never a hang; refusals that say why, at the client."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from time import monotonic

import numpy as np
import pytest

from securefl.errors import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    DeadlineError,
    DecodeError,
    InvalidInputError,
    PeerLostError,
    SecureFLError,
    TransportError,
)
from securefl.transport.tls import Credentials, Link, Listener, Mesh, connect, join, parse_address
from securefl.transport.tls.frames import Hello, Kind, header

LOOPBACK = ("127.0.0.1", 0)


@contextmanager
def pair(parties, **options):
    """(bob's link to alice, alice's link to bob), both in this process."""
    with listener(parties, **options) as alice:
        bob = connect(alice.address, Credentials.in_folder(parties, "bob"), "alice", **options)
        there = alice.accept(5)
        try:
            yield bob, there
        finally:
            bob.close()
            there.close()


def listener(parties, admit=("bob", "carol"), **options):
    return Listener(LOOPBACK, Credentials.in_folder(parties, "alice"), admit, **options)


def flood(link, **options):
    for _ in range(100):
        link.send(bytes(1 << 20), **options)


def drain(link):
    while True:
        link.receive(1 << 22, timeout=30)


def in_thread(step):
    thread = threading.Thread(target=step)
    thread.start()
    return thread


# ---- messages -----------------------------------------------------------------------------------------------


def test_messages_arrive_whole_and_in_order_whatever_their_size(parties):
    big = np.random.default_rng(0).integers(0, 256, 3_000_001, dtype=np.uint8)
    pieces = [big[:10], big[10:5000], b"", big[5000:]]
    with pair(parties) as (bob, alice):
        thread = in_thread(lambda: (bob.send(b"first"), bob.send(*pieces), bob.send(), bob.send(np.zeros((0, 3)))))
        assert bytes(alice.receive(5)) == b"first"
        assert np.array_equal(np.frombuffer(alice.receive(big.size), np.uint8), big)
        assert alice.receive(0).nbytes == 0
        assert alice.receive_up_to(10).nbytes == 0
        thread.join()
        assert bob.sent_bytes == alice.received_bytes == 5 + big.size + 4 * 8


def test_words_are_received_where_they_belong(parties):
    words = np.arange(100_000, dtype=np.uint64)
    with pair(parties) as (bob, alice):
        for late in (False, True):  # into the target, and from what was read ahead
            target = np.zeros_like(words)
            thread = in_thread(lambda: bob.send(words))
            if late:
                assert alice.ready(5)
            alice.receive_into(target)
            thread.join()
            assert np.array_equal(target, words)


def test_both_sides_may_send_at_once(parties):
    """More than the operating system buffers, in both directions, before either reads."""
    data = np.zeros(8_000_000, dtype=np.uint8)
    with pair(parties) as (bob, alice):
        thread = in_thread(lambda: (bob.send(data), bob.receive(data.size)))
        alice.send(data)
        assert alice.receive(data.size).nbytes == data.size
        thread.join(10)
        assert not thread.is_alive()


def test_a_message_of_another_size_is_refused(parties):
    with pair(parties, limit=1000) as (bob, alice):
        bob.send(bytes(10))
        with pytest.raises(DecodeError, match="10 bytes where 9 bytes are due"):
            alice.receive(9)
        bob.send(bytes(10))
        with pytest.raises(DecodeError, match="at most 9 bytes"):
            alice.receive_up_to(9)


def test_a_message_beyond_the_limit_is_refused_before_it_is_read(parties):
    with pair(parties, limit=1000) as (bob, alice):
        thread = in_thread(lambda: bob.send(bytes(1001)))
        with pytest.raises(DecodeError, match="announces 1001 bytes; at most 1000"):
            alice.receive_up_to(1000)
        thread.join()


@pytest.mark.parametrize("raw", [header(Kind.DATA, 2**40), header(Kind.HELLO, 3), b"\x00" * 8, b"\xff" * 8])
def test_a_header_that_cannot_be_is_refused_without_waiting_for_its_body(parties, raw):
    with pair(parties) as (bob, alice):
        bob._stream.encrypt(memoryview(raw))
        assert bob._stream.flush()
        with pytest.raises(DecodeError):
            alice.receive(3, timeout=5)


def test_a_truncated_frame_is_a_lost_peer(parties):
    with pair(parties) as (bob, alice):
        bob._stream.encrypt(memoryview(header(Kind.DATA, 100) + bytes(99)))
        assert bob._stream.flush()
        bob._stream.close(0.0)
        with pytest.raises(PeerLostError, match="lost bob"):
            alice.receive(100)


@pytest.mark.parametrize("buffer", [np.zeros((4, 4))[:, :2], "text", 5, np.array([None])])
def test_a_message_is_made_of_contiguous_buffers(parties, buffer):
    with pair(parties) as (bob, _), pytest.raises(InvalidInputError):
        bob.send(buffer)


# ---- the end ------------------------------------------------------------------------------------------------


def test_an_orderly_end_and_a_failure_are_told(parties):
    with pair(parties) as (bob, alice):
        bob.send(b"last")
        bob.close()
        assert bytes(alice.receive(4)) == b"last"
        with pytest.raises(PeerLostError, match="bob has ended the session"):
            alice.receive(1)
        with pytest.raises(PeerLostError, match="is closed"):
            bob.send(b"x")
    with pair(parties) as (bob, alice):
        bob.close("TooFewClientsError: 3 are left\x1b[0m")
        with pytest.raises(PeerLostError, match=r"bob ended the session: TooFewClientsError: 3 are left \[0m$") as lost:
            alice.receive(1)
        assert lost.value.party == "bob"


def test_a_check_keeps_what_came_and_finds_the_end(parties):
    with pair(parties) as (bob, alice):
        alice.check()
        bob.send(b"next")
        assert alice.ready(5)
        alice.check()
        assert bytes(alice.receive(4)) == b"next"
        bob.close()
        assert alice.ready(5)
        with pytest.raises(PeerLostError, match="bob has ended the session"):
            alice.check()


def test_the_writer_hears_why_its_reader_left(parties):
    with pair(parties) as (bob, alice):
        alice.close("ConfigurationError: no")
        with pytest.raises(PeerLostError, match="ConfigurationError: no"):
            flood(bob)


@pytest.mark.parametrize("step", ["receive", "send"])
def test_a_silent_peer_is_a_deadline_error(parties, step):
    with pair(parties, limit=1 << 20) as (bob, _):
        begin = monotonic()
        with pytest.raises(DeadlineError, match="alice did not") as late:
            # Nobody reads: at some point no more is taken.
            bob.receive(1 << 20, timeout=0.3) if step == "receive" else flood(bob, timeout=0.3)
        assert late.value.party == "alice"
        assert monotonic() - begin < 4


PEER = """
import sys, time
from pathlib import Path
from securefl.transport.tls import *
link = connect(parse_address(sys.argv[2]), Credentials.in_folder(Path(sys.argv[1]), "bob"), "alice")
link.send(b"here")
if sys.argv[3] == "send":
    while True:
        link.send(bytes(1 << 22))
time.sleep(60)
"""


def peer_process(parties, address, doing):
    return subprocess.Popen([sys.executable, "-c", PEER, str(parties), "{}:{}".format(*address), doing])


@pytest.mark.parametrize("doing", ["wait", "send"])
def test_kill_9_of_a_peer_is_named_at_once(parties, doing):
    with listener(parties) as alice, peer_process(parties, alice.address, doing) as peer:
        link = alice.accept(20)
        assert bytes(link.receive(4)) == b"here"
        os.kill(peer.pid, signal.SIGKILL)
        begin = monotonic()
        with pytest.raises(PeerLostError, match="lost bob"):
            drain(link)
        assert monotonic() - begin < 5
        link.close()


def test_a_stopped_peer_is_a_deadline_error(parties):
    with listener(parties) as alice, peer_process(parties, alice.address, "wait") as peer:
        link = alice.accept(20)
        assert bytes(link.receive(4)) == b"here"
        os.kill(peer.pid, signal.SIGSTOP)
        with pytest.raises(DeadlineError):
            link.receive(0, timeout=0.3)
        os.kill(peer.pid, signal.SIGKILL)
        link.close()


# ---- certificates -------------------------------------------------------------------------------------------


def shown(parties, name, folder=None):
    """Credentials that were not checked on this side."""
    folder = parties if folder is None else folder
    return Credentials(name, parties / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


@pytest.mark.parametrize(
    ("case", "words"),
    [("foreign", "its issuer is not the authority"), ("late", "has expired"), ("none", "asks for a certificate")],
)
def test_a_refused_certificate_is_a_certificate_error_at_the_client(parties, foreign, case, words):
    credentials = {
        "foreign": lambda: shown(parties, "bob", foreign),
        "late": lambda: shown(parties, "late"),
        "none": lambda: Credentials("bob", parties / "ca.pem", None, None),
    }[case]()
    seen: list[SecureFLError] = []
    with listener(parties, ("bob", "late"), refused=seen.append) as alice:
        for _ in range(5):  # the alert must not be lost to a reset
            begin = monotonic()
            with pytest.raises(CertificateError, match=words):
                connect(alice.address, credentials, "alice")
            assert monotonic() - begin < 5
        # and the listener goes on
        connect(alice.address, Credentials.in_folder(parties, "bob"), "alice").close()
        alice.accept(5).close()
    assert len(seen) == 5
    assert all(isinstance(error, CertificateError) for error in seen)


def test_a_listener_of_a_foreign_authority_is_refused_by_the_client(parties, foreign):
    seen: list[SecureFLError] = []
    with (
        Listener(LOOPBACK, Credentials.in_folder(foreign, "bob"), ["alice"], refused=seen.append) as bob,
        pytest.raises(CertificateError, match="the certificate of bob is refused"),
    ):
        connect(bob.address, Credentials.in_folder(parties, "alice"), "bob")
    assert isinstance(seen[0], CertificateError)


def test_a_listener_with_another_name_is_refused_by_the_client(parties):
    with listener(parties) as alice, pytest.raises(CertificateError, match="Hostname mismatch"):
        connect(alice.address, Credentials.in_folder(parties, "bob"), "carol")


def test_a_party_that_is_not_expected_is_told_so(parties):
    words = "alice does not let bob in: 'bob' is not one of the parties"
    with listener(parties, ["carol"]) as alice, pytest.raises(AuthenticationError, match=words):
        connect(alice.address, Credentials.in_folder(parties, "bob"), "alice")


def test_another_configuration_is_told_so(parties):
    with listener(parties, context=b"a" * 32) as alice, pytest.raises(AuthenticationError, match="another session"):
        connect(alice.address, Credentials.in_folder(parties, "bob"), "alice", context=b"b" * 32)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.0\r\n\r\n", b""])
def test_strangers_and_silence_hold_up_nobody(parties, first):
    seen: list[SecureFLError] = []
    with listener(parties, refused=seen.append) as alice:
        strangers = [socket.create_connection(alice.address) for _ in range(3)]
        for stranger in strangers:
            stranger.sendall(first)
        link = connect(alice.address, Credentials.in_folder(parties, "bob"), "alice")
        alice.accept(5).close()
        link.close()
        for stranger in strangers:
            stranger.close()
    assert all(isinstance(error, TransportError) for error in seen)


def test_old_tls_is_refused(parties):
    with listener(parties) as alice:
        context = ssl.create_default_context(cafile=str(parties / "ca.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(parties / "bob.pem", parties / "bob.key")
        with socket.create_connection(alice.address) as raw, pytest.raises(ssl.SSLError, match=r"(?i)version"):
            context.wrap_socket(raw, server_hostname="alice")


@pytest.mark.parametrize(
    "frames",
    [
        header(Kind.HELLO, 2**20),
        header(Kind.DATA, 1) + b"x",
        header(Kind.HELLO, 4) + b"what",
        header(Kind.HELLO, 59) + Hello("carol", "alice", bytes(32)).encode(),
    ],
)
def test_a_party_that_does_not_say_hello_properly_is_refused(parties, frames):
    """A client of our own authority that speaks the handshake and then something else."""
    seen: list[SecureFLError] = []
    with listener(parties, refused=seen.append) as alice:
        context = Credentials.in_folder(parties, "bob").context(server=False)
        raw = socket.create_connection(alice.address, timeout=5)
        with context.wrap_socket(raw, server_hostname="alice") as stream:
            stream.recv(8)
            stream.sendall(frames)
            while stream.recv(1 << 12):
                pass
    assert isinstance(seen[0], DecodeError | AuthenticationError)


def test_nobody_listens(parties):
    with socket.create_server(LOOPBACK) as free:
        address = free.getsockname()
    with pytest.raises(PeerLostError, match=r"alice at 127\.0\.0\.1:\d+ cannot be reached"):
        connect(address, Credentials.in_folder(parties, "bob"), "alice", wait=0.1)


# ---- several links ------------------------------------------------------------------------------------------


@contextmanager
def mesh_of_three(parties, **options):
    names = ["alice", "bob", "carol"]
    listeners = {name: Listener(LOOPBACK, Credentials.in_folder(parties, name), names, **options) for name in names}
    addresses = {name: listeners[name].address for name in names}
    meshes: dict[str, Mesh] = {}

    def make(name):
        credentials = Credentials.in_folder(parties, name)
        meshes[name] = join(name, addresses, credentials, listeners[name], wait=10, **options)

    threads = [in_thread(lambda name=name: make(name)) for name in names]
    for thread in threads:
        thread.join()
    try:
        yield [meshes[name] for name in names]
    finally:
        for name in names:
            meshes[name].close()
            listeners[name].close()


def test_all_parties_send_to_all_before_any_reads(parties):
    data = np.zeros(6_000_000, dtype=np.uint8)

    def run(mesh):
        for other in mesh.parties:
            mesh.send(other, data)
        for other in mesh.parties:
            assert mesh.receive(other, data.size).nbytes == data.size
        done.append(mesh)

    done: list[Mesh] = []
    with mesh_of_three(parties) as meshes:
        threads = [in_thread(lambda mesh=mesh: run(mesh)) for mesh in meshes]
        for thread in threads:
            thread.join(20)
        assert len(done) == 3
        assert meshes[0].sent_bytes == {1: data.size + 8, 2: data.size + 8}


def test_the_loss_of_one_party_is_noticed_while_waiting_for_another(parties):
    with mesh_of_three(parties) as (alice, bob, carol):
        carol.link(0)._stream.close(0.0)
        begin = monotonic()
        with pytest.raises(PeerLostError, match="lost carol"):
            alice.receive(1, 10)
        assert monotonic() - begin < 2
        alice.close("PeerLostError: lost carol")
        with pytest.raises(PeerLostError, match="alice ended the session: PeerLostError: lost carol"):
            bob.receive(2, 10)


def test_a_party_that_does_not_come_is_named(parties):
    with listener(parties) as alice:
        addresses = {"alice": alice.address, "bob": alice.address}
        with pytest.raises(DeadlineError, match="missing: bob"):
            join("alice", addresses, Credentials.in_folder(parties, "alice"), alice, wait=0.2)


def test_addresses():
    assert parse_address("localhost:80") == ("localhost", 80)
    assert parse_address("[::1]:8000") == ("::1", 8000)
    for text in ("", "host", ":1", "host:", "host:x", "host:70000", "host:-1", "host:²"):
        with pytest.raises(ConfigurationError, match="host:port"):
            parse_address(text)
    assert repr(Link).startswith("<class")
