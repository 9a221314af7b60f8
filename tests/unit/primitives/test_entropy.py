"""Secret randomness comes from the operating system, through one source that can be replaced."""

import os

import pytest

from securefl.primitives import entropy, shamir
from securefl.primitives.entropy import SystemEntropy
from securefl.primitives.kem import Suite, key_pair, unseal
from securefl.secagg import Client, Params


def test_tokens_are_the_operating_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(length: int) -> bytes:
        asked.append(length)
        return b"\xab" * length

    monkeypatch.setattr(os, "urandom", urandom)
    assert SystemEntropy().token(5) == b"\xab" * 5
    assert entropy.SystemEntropy().token(0) == b""
    assert asked == [5, 0]


def test_tokens_have_the_length_asked_for_and_do_not_repeat() -> None:
    source = SystemEntropy()
    assert [len(source.token(n)) for n in (1, 16, 32, 48, 4800)] == [1, 16, 32, 48, 4800]
    assert len({source.token(32) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("suite", Suite)
def test_seals_are_fresh_and_open(suite: Suite) -> None:
    private, public = key_pair(suite, bytes(range(32)))
    seals = {SystemEntropy().seal(public, b"seed", b"info") for _ in range(8)}
    assert len({sealed[: suite.encapsulation_bytes] for sealed in seals}) == 8  # a new ephemeral key every time
    assert {unseal(private, sealed, b"info") for sealed in seals} == {b"seed"}


def test_the_source_prints_nothing() -> None:
    assert repr(SystemEntropy()) == str(SystemEntropy()) == "SystemEntropy()"


def test_a_client_without_a_source_draws_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    real = os.urandom

    def urandom(length: int) -> bytes:
        drawn.append(real(length))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    Client(Params((1, 2), 1, 1, suite=Suite.X25519), 1).start()
    assert [len(token) for token in drawn] == [32, 32, 32]  # mask seed, self-mask seed, channel seed
    assert len(set(drawn)) == 3


def test_shares_of_one_secret_are_fresh() -> None:
    """The polynomial is drawn anew, so equal secrets do not give equal shares."""
    dealt = [shamir.split(bytes(32), points=3, threshold=2, entropy=SystemEntropy()) for _ in range(20)]
    assert len({shares[0] for shares in dealt}) == 20
