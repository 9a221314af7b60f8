"""The face that the pipeline uses, and the promise that secrets never print: whole sessions in one process."""

import base64
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from securefl.errors import ConfigurationError, FaultyClientError, TooFewClientsError
from securefl.machine import ClientRole, RoundContext, ServerRole
from securefl.plain import PlainSum
from securefl.primitives import shamir
from securefl.primitives.kdf import Label, derive
from securefl.primitives.kem import Suite
from securefl.secagg import Client, MaskedSum, Params, Server, masking
from securefl.secagg.messages import MaskedInput, UnmaskShares
from securefl.testing import RecordingEntropy, ReplayEntropy
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import ClientId, PartyId

IDS = (1, 2, 3, 5)
CONTEXT = RoundContext(b"session", 1, IDS, 50, 1000, 3, b"\5" * 32)
INPUTS = {i: (np.arange(50, dtype=np.uint64) * np.uint64(i)) % np.uint64(1001) for i in IDS}
both_suites = pytest.mark.parametrize("suite", Suite)


def run(protection: MaskedSum | PlainSum, faults: Faults | None = None, **changes: object) -> Outcome:
    return run_session(protection, replace(CONTEXT, **changes), lambda client: INPUTS[client], faults=faults)


@both_suites
def test_the_masked_sum_is_the_plain_sum_bit_for_bit(suite: Suite) -> None:
    masked, plain = run(MaskedSum(suite)).unwrap(), run(PlainSum()).unwrap()
    assert masked.survivors == plain.survivors == IDS
    assert masked.values.dtype == plain.values.dtype
    assert np.array_equal(masked.values, plain.values)
    assert masked.values.tolist() == np.sum(list(INPUTS.values()), axis=0).tolist()


@both_suites
@pytest.mark.parametrize("sent", [0, 1, 2, 3])
@pytest.mark.parametrize("gone", IDS)
def test_dropouts_through_the_face(suite: Suite, gone: int, sent: int) -> None:
    outcome = run(MaskedSum(suite), Faults(drop_after={gone: sent}))
    survivors = IDS if sent > MaskedSum().vector_frame else tuple(i for i in IDS if i != gone)
    assert outcome.unwrap().survivors == survivors
    assert outcome.unwrap().values.tolist() == np.sum([INPUTS[i] for i in survivors], axis=0).tolist()
    assert outcome.failures == []


def test_the_protection_names_itself_and_makes_roles() -> None:
    protection = MaskedSum()
    assert (protection.name, protection.vector_frame, protection.suite) == ("masked", 2, Suite.MLKEM768_X25519)
    client, server = protection.client(CONTEXT, 2), protection.server(CONTEXT)
    assert isinstance(client, Client)
    assert isinstance(server, Server)
    assert client._params == server._params == Params.of(CONTEXT)
    assert protection.client(CONTEXT, 2) is not client
    assert protection.others(CONTEXT) == {}


def test_the_vector_frame_is_where_the_vector_is() -> None:
    outcome = run(MaskedSum(Suite.X25519))
    size = 8 * Params.of(CONTEXT).lanes.words + 72
    assert dict(outcome.vector_bytes) == dict.fromkeys(IDS, size)


@pytest.mark.parametrize(
    "change",
    [
        {"clients": (1,)},
        {"clients": (1, 1, 2)},
        {"clients": (3, 2, 1)},
        {"threshold": 1},
        {"threshold": 2},
        {"threshold": 5},
        {"dimension": 0},
        {"max_value": 0},
        {"max_value": 2**63},
        {"session": b""},
        {"round": -1},
        {"model_hash": b""},
    ],
    ids=str,
)
def test_a_context_that_cannot_work_has_no_roles(change: dict) -> None:
    for make in (lambda context: MaskedSum().server(context), lambda context: MaskedSum().client(context, 1)):
        with pytest.raises(ConfigurationError):
            make(replace(CONTEXT, **change))


def test_an_own_floor_comes_from_the_protection_and_not_from_the_context() -> None:
    assert MaskedSum(minimum_survivors=4).client(CONTEXT, 1)._minimum == 4
    for floor in (2, 5):
        with pytest.raises(ConfigurationError, match="minimum_survivors"):
            MaskedSum(minimum_survivors=floor).client(CONTEXT, 1)
    with pytest.raises(ConfigurationError, match="threshold"):
        MaskedSum(minimum_threshold=4).client(CONTEXT, 1)
    outcome = run(MaskedSum(Suite.X25519, minimum_survivors=4), Faults(drop_after={5: 2}))
    assert outcome.result is None
    assert isinstance(outcome.error, TooFewClientsError)
    assert [type(error) for _, error in outcome.failures] == [TooFewClientsError] * 3


def test_the_server_learns_the_sum_and_not_the_inputs() -> None:
    """What went over the wire holds no client's packed vector, aligned or not; a plain session's does."""
    packed = [Params.of(CONTEXT).lanes.pack(INPUTS[i]).tobytes() for i in IDS]

    def wire(protection: MaskedSum | PlainSum) -> bytes:
        frames: list[bytes] = []
        run_session(protection, CONTEXT, lambda i: INPUTS[i], observe=lambda _s, _t, frame: frames.append(bytes(frame)))
        return b"".join(frames)

    masked, plain = wire(MaskedSum(Suite.X25519)), wire(PlainSum())
    assert all(vector in plain for vector in packed)
    for vector in packed:
        assert not any(vector[at : at + 8] in masked for at in range(8, len(vector) - 8, 8))


# ---- secrets never print ------------------------------------------------------------------------------------


@dataclass
class Recorded:
    """A masked sum whose clients' randomness and roles are kept; some clients may be replaced."""

    suite: Suite
    kinds: Mapping[ClientId, type[Client]] = field(default_factory=dict)
    drawn: dict[ClientId, RecordingEntropy] = field(default_factory=dict)
    roles: list[object] = field(default_factory=list)
    name: str = "masked"
    vector_frame: int = 2

    def client(self, context: RoundContext, me: ClientId) -> ClientRole:
        self.drawn[me] = RecordingEntropy()
        role = self.kinds.get(me, Client)(Params.of(context, self.suite), me, entropy=self.drawn[me])
        self.roles.append(role)
        return role

    def server(self, context: RoundContext) -> ServerRole:
        self.roles.append(Server(Params.of(context, self.suite)))
        return self.roles[-1]

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}


class Liar(Client):
    """Returns wrong shares, so that seeds do not open."""

    def _shares_for(self, client: int, shells: Sequence[int]) -> list[bytes | None]:
        return [bytes(32) + b"\7" for _ in shells]


def secrets_of(protection: Recorded) -> set[bytes]:
    """Seeds, coefficients, shares, derived secrets and stream keys of a session; and the inputs."""
    params = Params.of(CONTEXT, protection.suite)
    found: set[bytes] = set()
    for i, recording in protection.drawn.items():
        tokens = recording.tokens
        found |= {token[at : at + 48] for token in tokens for at in range(0, len(token), 48)}
        for which in (0, 1):
            if len(tokens) == 5:
                entropy = ReplayEntropy([tokens[3 + which]], [])
                found |= set(shamir.split(tokens[which], points=4, threshold=3, entropy=entropy))
        for label, seed in ((Label.MASK_KEY, tokens[0]), (Label.CHANNEL_KEY, tokens[2])):
            found.add(derive(seed, label, params.context_hash, i.to_bytes(4, "big")))
        found.add(masking.self_stream_key(params, i, tokens[1]))
        for high in (j for j in params.clients if j > i):
            secret = masking.pair_secret(params, tokens[0], i, high)
            found |= {secret, masking.pair_stream_key(params, secret, i, high)}
        found.add(params.lanes.pack(INPUTS[i]).tobytes()[:32])
    return found


def spellings(secret: bytes) -> set[str]:
    """The ways in which bytes get into a text."""
    return {
        secret.hex(),
        repr(secret)[2:-1],
        repr(list(secret))[1:-1],
        str(int.from_bytes(secret, "big")),
        base64.b64encode(secret).decode().rstrip("=")[:-1],
    }


def reachable(start: object) -> Iterator[object]:
    """Every object of this package that hangs on ``start``."""
    seen: set[int] = set()
    stack = [start]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | type):
            continue
        seen.add(id(item))
        if type(item).__module__.startswith("securefl"):
            yield item
        stack += item.values() if isinstance(item, dict) else ()
        stack += item if isinstance(item, list | tuple | set | frozenset) else ()
        stack += vars(item).values() if hasattr(item, "__dict__") else ()
        for slot in getattr(type(item), "__slots__", ()):
            stack.append(getattr(item, slot, None))


@both_suites
@pytest.mark.parametrize(
    ("kinds", "faults"),
    [
        ({}, Faults()),
        ({}, Faults(drop_after={2: 2})),
        ({}, Faults(drop_after={1: 3, 2: 1, 3: 3})),
        ({}, Faults(flip={(1, 1): 900, (0, 5): 700, (5, 2): 600})),
        ({}, Faults(repeat=frozenset({(0, 9), (0, 10)}))),
        ({1: Liar}, Faults()),
        ({1: Liar, 3: Liar}, Faults()),
    ],
    ids=["honest", "dropout", "too few", "flipped", "repeated request", "one liar", "two liars"],
)
def test_no_secret_prints(suite: Suite, kinds: Mapping[int, type[Client]], faults: Faults) -> None:
    """Repr and str of all objects at every frame, and every exception with its traceback."""
    protection, texts = Recorded(suite, kinds), []

    def watch(*_: object) -> None:
        for item in reachable(protection.roles):
            texts.extend((repr(item), str(item)))

    outcome = run_session(protection, CONTEXT, lambda client: INPUTS[client], faults=faults, observe=watch)
    watch()
    errors = [error for _, error in outcome.failures] + ([outcome.error] if outcome.error else [])
    for error in errors:
        texts += [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
    texts += [repr(outcome), repr(outcome.result), str(protection.roles)]
    text = "\n".join(set(texts))
    assert "<redacted>" in text  # the walk got to the keys
    assert "Sealed(" in text
    secrets = secrets_of(protection)
    assert len(secrets) > 4 * 20
    leaked = [secret.hex() for secret in secrets for spelling in spellings(secret) if spelling in text]
    assert leaked == []
    if kinds:
        assert errors or outcome.unwrap().suspects == (1,)


def test_the_search_above_finds_what_is_printed() -> None:
    protection = Recorded(Suite.X25519)
    run_session(protection, CONTEXT, lambda client: INPUTS[client])
    seed = protection.drawn[1].tokens[0]
    for text in (f"{seed!r}", seed.hex(), str(list(seed)), base64.b64encode(seed).decode(), f"{int.from_bytes(seed)}"):
        assert any(spelling in text for spelling in spellings(seed))
    assert seed in secrets_of(protection)


def test_messages_with_shares_and_vectors_do_not_print_them() -> None:
    share = bytes(range(33))
    texts = [repr(UnmaskShares((share, None))), repr(MaskedInput(np.frombuffer(bytes(range(32)), dtype="<u8")))]
    assert not any(spelling in text for text in texts for spelling in spellings(share))


def test_an_error_that_names_clients_names_nothing_else() -> None:
    outcome = run(MaskedSum(Suite.X25519), Faults(flip={(2, 1): 8 * 100}))
    assert outcome.unwrap().survivors == (1, 3, 5)
    assert isinstance(FaultyClientError("x", [3]), FaultyClientError)
