"""A party of the n-of-n sum, without IO. SPEC: protocols/ckks-threshold/SPEC.md §5 (steps), §8 (states and checks)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto

import numpy as np

from securefl.ckks.threshold import wide
from securefl.ckks.threshold.check import Announcement
from securefl.ckks.threshold.key import PartyKey, encrypt
from securefl.ckks.threshold.messages import (
    POLYNOMIAL_BYTES,
    Abort,
    Confirmed,
    JointKey,
    KeyShare,
    Kind,
    Restart,
    Share,
    Sum,
    client_limits,
    read_polynomial,
    write_polynomial,
)
from securefl.ckks.threshold.params import PROTOCOL, ThresholdParams, require_keys
from securefl.ckks.threshold.suspension import SuspendedParty
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyServerError,
    LocalProtocolError,
    ProtocolError,
    TooFewClientsError,
)
from securefl.machine import Completed, Event, Machine, NeedInput, Send, TransitionTable
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.identity import Directory, Identity
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, open_frame, seal_frame

__all__ = ["ThresholdClient"]


class State(Enum):
    NEW = auto()
    KEYED = auto()
    KEY_SEEN = auto()
    READY = auto()
    ENCRYPTED = auto()
    SUM_SEEN = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. Once a share is given (FINISHED) there is no way to a new attempt.
CLIENT_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.KEYED},
    State.KEYED: {"provide": State.KEYED, "JOINT_KEY": State.KEY_SEEN, "ABORT": State.ABORTED},
    State.KEY_SEEN: {
        "provide": State.KEY_SEEN,
        "KEY_CONFIRMED": State.READY,
        "RESTART": State.KEYED,
        "ABORT": State.ABORTED,
    },
    State.READY: {
        "provide": State.READY,
        "encrypt": State.ENCRYPTED,
        "RESTART": State.KEYED,
        "ABORT": State.ABORTED,
    },
    State.ENCRYPTED: {"SUM": State.SUM_SEEN, "RESTART": State.KEYED, "ABORT": State.ABORTED},
    State.SUM_SEEN: {"SUM_CONFIRMED": State.FINISHED, "RESTART": State.KEYED, "ABORT": State.ABORTED},
    State.FINISHED: {"ABORT": State.ABORTED},
    State.ABORTED: {"ABORT": State.ABORTED},
}


class ThresholdClient(Machine):
    """One party in one session: :meth:`start`, then :meth:`provide` and :meth:`receive` until it is finished.

    ``identity``: what this client signs with. ``directory``: the public keys of all clients, from a source that it
    trusts for them and that is not the server. ``minimum_survivors``: its own least number of parties, from local
    configuration; default: the threshold. ``entropy``: replaced only by tests.

    It gives at most one decryption share in its life. Raises :class:`ConfigurationError` for what cannot work.
    """

    TRANSITIONS = CLIENT_TRANSITIONS
    INITIAL = State.NEW

    def __init__(
        self,
        params: ThresholdParams,
        me: ClientId,
        identity: Identity,
        directory: Directory,
        *,
        minimum_survivors: int | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        super().__init__()
        if me not in params:
            raise ConfigurationError(f"client {me} is not among the invited clients")
        self._minimum = params.threshold if minimum_survivors is None else minimum_survivors
        if not params.threshold <= self._minimum <= len(params.clients):
            raise ConfigurationError(
                f"minimum_survivors must be {params.threshold} (the threshold) to {len(params.clients)}, "
                f"got {self._minimum}"
            )
        require_keys(params, directory)
        if directory.keys[me] != identity.public:
            raise ConfigurationError(f"the directory holds another public key of client {me} than its own")
        self._params, self._me = params, me
        self._identity, self._directory = identity, directory
        self._entropy: Entropy = SystemEntropy() if entropy is None else entropy
        self._plaintext: wide.Words | None = None
        self._attempt, self._clients = 0, params.clients
        self._context = b""
        self._seen: dict[int, bytes] = {}
        self._seed = b""
        self._key: PartyKey | None = None
        self._joint: JointKey | None = None
        self._parties: tuple[ClientId, ...] = ()
        self._announced: Announcement | None = None
        self._sent = b""  # own c1 polynomials, for the fingerprint
        self._sum: Sum | None = None

    def start(self) -> Sequence[Event]:
        """Make a key share and send its public part. SPEC §5."""
        self._advance("start")
        return [self._begin()]

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """Give the integers to be summed: uint64[dimension], each <= max_value. Once; the array may be reused after.

        Raises :class:`~securefl.errors.InvalidInputError` for values that do not fit; the session goes on and waits.
        """
        self._check("provide")
        if self._plaintext is not None:
            raise LocalProtocolError("the input was given already; one object serves one session")
        self._params.packing.check(values)
        self._plaintext = self._params.encode(values)
        return self._encrypt(self._plaintext) if self.state is State.READY else ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from the server.

        Raises :class:`~securefl.errors.DecodeError` for bytes that are not a message of this session's present attempt
        and :class:`FaultyServerError` for a message out of turn: nothing is answered, nothing changes. Raises
        :class:`ProtocolError` or :class:`AuthenticationError` for a message that the session cannot go on from: the
        secrets are dropped and the client takes no further part.
        """
        params = self._params
        envelope = open_frame(
            frame, protocol=PROTOCOL, context=self._context, recipient=self._me, limits=client_limits(params)
        )
        kind = Kind(envelope.kind)
        if self._seen.get(kind) == envelope.checksum:
            return ()  # the same frame again: transports may repeat; nothing is produced twice
        if envelope.sender != SERVER or kind.name not in self.TRANSITIONS[self._state]:
            raise FaultyServerError(
                f"{kind.name} from party {envelope.sender} does not belong to state {self._state.name}: "
                "each step happens once, and only the server speaks to clients"
            )
        message: JointKey | Confirmed | Sum | Restart | Abort
        if kind is Kind.JOINT_KEY:
            message = JointKey.decode(envelope.body, params)
        elif kind is Kind.SUM:
            message = Sum.decode(envelope.body, params)
        elif kind is Kind.RESTART:
            message = Restart.decode(envelope.body, params)
        elif kind is Kind.ABORT:
            message = Abort.decode(envelope.body)
        else:
            message = Confirmed.decode(envelope.body, len(self._parties))
        self._seen[kind] = envelope.checksum
        self._advance(kind.name)
        try:
            match message:
                case JointKey():
                    return self._take_key(message, envelope.body)
                case Sum():
                    return self._take_sum(message, envelope.body)
                case Confirmed():
                    return self._take_confirmations(message)
                case Restart():
                    return self._restart(message)
                case Abort():
                    self._drop_secrets()
                    return [message.event()]
        except (ProtocolError, AuthenticationError):
            self._state = State.ABORTED
            self._drop_secrets()
            raise

    # ---- between messages -----------------------------------------------------------------------------------

    def suspend(self) -> bytes:
        """This party as bytes, secrets included, to go on elsewhere by :meth:`resume`, once; see :mod:`.suspension`.

        Raises :class:`LocalProtocolError` before the start and after the end.
        """
        self._held()
        return SuspendedParty(
            state=self._state.value,
            me=self._me,
            minimum=self._minimum,
            attempt=self._attempt,
            clients=self._clients,
            seed=self._seed,
            parties=self._parties,
            seen=self._seen,
            plaintext=b"" if self._plaintext is None else self._plaintext.astype("<u8").tobytes(),
            joint=b"" if self._joint is None else self._joint.encode(),
            announced=b"" if self._sum is None else self._sum.encode(),
            sent=self._sent,
        ).encode(self._params)

    @classmethod
    def resume(cls, params: ThresholdParams, data: Buffer, identity: Identity, directory: Directory) -> ThresholdClient:
        """The party that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        saved = SuspendedParty.decode(data, params)
        party = cls(params, saved.me, identity, directory, minimum_survivors=saved.minimum)
        try:
            party._state = State(saved.state)
        except ValueError:
            raise DecodeError(f"a suspended party is in no state {saved.state}") from None
        party._attempt, party._clients, party._parties = saved.attempt, saved.clients, saved.parties
        party._context = params.attempt_hash(saved.attempt, saved.clients)
        party._seed, party._seen, party._sent = saved.seed, dict(saved.seen), saved.sent
        party._key = PartyKey(saved.seed, party._context)
        if saved.plaintext:
            party._plaintext = np.frombuffer(saved.plaintext, dtype="<u8").reshape(2, -1).astype(np.uint64)
        if saved.joint:
            party._joint = JointKey.decode(saved.joint, params)
        if saved.announced:
            party._sum = Sum.decode(saved.announced, params)
        if party._sum is not None and party.state is State.SUM_SEEN:
            limbs = (part.astype(np.int64) for part in party._sum.sums)
            party._announced = Announcement(party._context, Kind.SUM, memoryview(saved.announced), limbs)
        elif party._joint is not None and party.state is State.KEY_SEEN:
            sums = party._joint.sums.astype(np.int64)
            party._announced = Announcement(party._context, Kind.JOINT_KEY, memoryview(saved.joint), [sums])
        return party

    # ---- keys -----------------------------------------------------------------------------------------------

    def _begin(self) -> Event:
        """An attempt: fresh keys, bound to its number and its clients."""
        self._context = self._params.attempt_hash(self._attempt, self._clients)
        self._seen = {}
        self._seed = self._entropy.token(32)
        self._key = PartyKey(self._seed, self._context)
        return self._signed(Kind.KEY_SHARE, KeyShare(wide.words_of(self._key.public)).encode())

    def _take_key(self, message: JointKey, body: memoryview) -> Sequence[Event]:
        parties, key = message.parties, self._held()
        if self._me not in parties or not set(parties) <= set(self._clients):
            raise FaultyServerError("the joint key leaves this client out, or names one that is not in this attempt")
        self._enough(len(parties), "gave key shares")
        self._parties = parties
        sums = message.sums.astype(np.int64)
        self._announced = Announcement(self._context, Kind.JOINT_KEY, body, [sums])
        confirm = self._announced.confirm(self._me, self._identity, [key.public])
        self._joint = message
        return [self._send(Kind.CONFIRM_KEY, confirm.encode())]

    def _take_confirmations(self, message: Confirmed) -> Sequence[Event]:
        if self._announced is None:  # pragma: no cover - the table leads here only after an announcement
            raise LocalProtocolError("nothing was announced")
        self._announced.verify(self._parties, self._directory, message.items)
        self._announced = None
        if self.state is State.FINISHED:
            return self._open()
        return [NeedInput()] if self._plaintext is None else self._encrypt(self._plaintext)

    # ---- the input ------------------------------------------------------------------------------------------

    def _encrypt(self, plaintext: wide.Words) -> Sequence[Event]:
        self._advance("encrypt")
        key = self._held()
        if self._joint is None:  # pragma: no cover - the table leads here only with a key
            raise LocalProtocolError("there is no joint key")
        c0 = np.empty((2, self._params.coefficients), dtype="<u8")
        c1: list[bytes] = []
        joint = wide.image(wide.carry(self._joint.sums.astype(np.int64)))
        for high, words in encrypt(joint, key.reference, self._seed, self._context, plaintext):
            at = len(c1) * wide.DEGREE
            c0[:, at : at + high.shape[1]] = high
            c1.append(write_polynomial(words))
        self._sent = b"".join(c1)
        self._joint = None
        return [self._signed(Kind.INPUT, c0.view(np.uint8).reshape(-1).data, self._sent)]

    def _own(self) -> Iterator[wide.Limbs]:
        for at in range(0, len(self._sent), POLYNOMIAL_BYTES):
            yield wide.limbs_of(read_polynomial(memoryview(self._sent)[at : at + POLYNOMIAL_BYTES]))

    def _take_sum(self, message: Sum, body: memoryview) -> Sequence[Event]:
        announced = Announcement(self._context, Kind.SUM, body, (part.astype(np.int64) for part in message.sums))
        confirm = announced.confirm(self._me, self._identity, self._own())
        self._announced, self._sum, self._sent = announced, message, b""
        return [self._send(Kind.CONFIRM_SUM, confirm.encode())]

    def _open(self) -> Sequence[Event]:
        """The one decryption share, after every party confirmed the same sum. SPEC §5."""
        key, announced = self._held(), self._sum
        if announced is None:  # pragma: no cover - the table leads here only with a sum
            raise LocalProtocolError("there is no sum")
        share = Share(key.open_once(announced.sums, self._params))
        self._drop_secrets()
        return [self._signed(Kind.SHARE, share.encode()), Completed()]

    # ---- the rest -------------------------------------------------------------------------------------------

    def _restart(self, message: Restart) -> Sequence[Event]:
        """Begin again without those who are gone: nothing was opened, and nothing of the old attempt ever will be."""
        left = set(message.clients)
        if self._me not in left or not left < set(self._parties):
            raise FaultyServerError("a restart must drop parties of the attempt, and not this one")
        self._enough(len(left), "are left")
        self._held().forget()
        self._announced, self._joint, self._sum, self._sent, self._parties = None, None, None, b"", ()
        self._attempt += 1
        self._clients = message.clients
        return [self._begin()]

    def _enough(self, count: int, what: str) -> None:
        if count < self._minimum:
            raise TooFewClientsError(f"{count} clients {what}; this client takes part with at least {self._minimum}")

    def _held(self) -> PartyKey:
        if self._key is None:
            raise LocalProtocolError("this session is over: its secrets are gone")
        return self._key

    def _drop_secrets(self) -> None:
        if self._key is not None:
            self._key.forget()
        self._key = self._plaintext = self._joint = self._sum = self._announced = None
        self._seed = self._sent = b""

    def _signed(self, kind: Kind, *parts: Buffer) -> Send:
        return self._send(kind, *parts, self._identity.sign(self._context, kind, self._me, SERVER, *parts))

    def _send(self, kind: Kind, *parts: Buffer) -> Send:
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._context, self._me, SERVER, *parts))
