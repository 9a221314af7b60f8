"""Clients that fall silent at every step, and one that returns a wrong share. Needs the base install only.

python3 examples/02_dropouts_and_blame.py
"""

from collections.abc import Sequence

import numpy as np

from securefl.errors import FaultyClientError, TooFewClientsError
from securefl.machine import Event, RoundContext, Send
from securefl.secagg import Client, MaskedSum
from securefl.secagg.messages import Kind, UnmaskShares, server_limits
from securefl.secagg.params import PROTOCOL, Params
from securefl.transport.memory import Faults, run_session
from securefl.types import SERVER, ClientId, IntegerVector, PartyId
from securefl.wire import open_frame, seal_frame

CLIENTS = tuple(PartyId(i) for i in range(1, 6))
THRESHOLD = 3
LIAR = PartyId(2)
STEPS = ("advertising its keys", "sharing its keys", "its masked input", "its unmask shares")


def context() -> RoundContext:
    """Five clients; client i contributes 10^i in every place, so a sum spells out who is in it."""
    return RoundContext(
        session=b"dropouts",
        round=1,
        clients=CLIENTS,
        dimension=4,
        max_value=10**5,
        threshold=THRESHOLD,
        model_hash=bytes(32),
    )


def input_of(client: ClientId) -> IntegerVector:
    return np.full(4, 10**client, dtype=np.uint64)


def dropouts() -> None:
    print("client 4 falls silent before …")
    for sent, step in enumerate(STEPS):
        faults = Faults(drop_after={PartyId(4): sent})
        result = run_session(MaskedSum(), context(), input_of, faults=faults).unwrap()
        assert int(result.values[0]) == sum(10**i for i in result.survivors)
        assert (4 in result.survivors) == (sent == 3)  # its masked input arrived: it is in the sum
        print(f"  {step:21} sum {int(result.values[0]):6}  survivors {result.survivors}")

    faults = Faults(drop_after={PartyId(3): 2, PartyId(4): 2, PartyId(5): 1})
    outcome = run_session(MaskedSum(), context(), input_of, faults=faults)
    assert isinstance(outcome.error, TooFewClientsError)
    assert outcome.result is None
    print(f"three fall silent: {type(outcome.error).__name__}: {outcome.error}")


class LyingClient(Client):
    """Follows the protocol, but flips a bit in every share that it returns."""

    def receive(self, frame: bytes) -> Sequence[Event]:
        return [self._lie(event) if isinstance(event, Send) else event for event in super().receive(frame)]

    def _lie(self, event: Send) -> Send:
        params = Params.of(context())
        limits = server_limits(params)
        envelope = open_frame(
            event.frame, protocol=PROTOCOL, context=params.context_hash, recipient=SERVER, limits=limits
        )
        if envelope.kind != Kind.UNMASK_SHARES:
            return event
        wrong = UnmaskShares(
            tuple(
                None if share is None else share[:-1] + bytes([share[-1] ^ 1])
                for share in UnmaskShares.decode(envelope.body, params).shares
            )
        )
        return Send(
            SERVER,
            seal_frame(PROTOCOL, Kind.UNMASK_SHARES, params.context_hash, LIAR, SERVER, wrong.encode()),
        )


class WithLiar(MaskedSum):
    """The masked sum in which client 2 lies."""

    def client(self, context: RoundContext, me: ClientId) -> Client:
        return (LyingClient if me == LIAR else Client)(Params.of(context), me)


def blame() -> None:
    result = run_session(WithLiar(), context(), input_of).unwrap()
    assert int(result.values[0]) == 111110
    assert result.suspects == (LIAR,)
    print(f"client 2 returns wrong shares: sum {int(result.values[0])} is exact, suspects {result.suspects}")

    # With exactly THRESHOLD answers there is nothing to compare a share with: no sum, rather than a wrong one.
    # Whom the error blames is a suspicion: a share may be wrong because of who dealt it or because of who returned it.
    faults = Faults(drop_after={PartyId(4): 3, PartyId(5): 3})
    outcome = run_session(WithLiar(), context(), input_of, faults=faults)
    assert isinstance(outcome.error, FaultyClientError)
    assert outcome.result is None
    print(f"… and with three answers only: {type(outcome.error).__name__}, blamed {outcome.blamed}: {outcome.error}")


def damage() -> None:
    """A bit flips on the way: the receiver refuses the frame, and the sender counts as dropped."""
    vector_of_5 = (PartyId(5), MaskedSum().vector_frame)
    outcome = run_session(MaskedSum(), context(), input_of, faults=Faults(flip={vector_of_5: 1000}))
    result = outcome.unwrap()
    party, error = outcome.failures[0]
    assert (party, type(error).__name__) == (SERVER, "DecodeError")
    assert result.survivors == (1, 2, 3, 4)
    assert int(result.values[0]) == 11110
    print(f"a bit of client 5's vector flips: {type(error).__name__}: {error}")


if __name__ == "__main__":
    dropouts()
    blame()
    damage()
