"""The client of the masked sum, without IO. SPEC: protocols/secagg/SPEC.md §5 (steps), §7 (states and checks)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from itertools import groupby

from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    LocalProtocolError,
    ProtocolError,
    TooFewClientsError,
)
from securefl.machine import Completed, Event, Machine, NeedInput, Send, TransitionTable
from securefl.primitives import shamir
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kem import SEED_BYTES, PrivateKey, public_key, unseal
from securefl.primitives.shamir import SHARE_BYTES
from securefl.secagg import masking
from securefl.secagg.messages import (
    Abort,
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    MaskedInput,
    Roster,
    Sealed,
    UnmaskRequest,
    UnmaskShares,
    client_limits,
)
from securefl.secagg.params import PROTOCOL, Params
from securefl.secagg.suspension import SuspendedClient
from securefl.secagg.unmasking import share_places
from securefl.types import SERVER, ClientId, IntegerVector, RingVector
from securefl.wire import Buffer, Envelope, open_frame, seal_frame

__all__ = ["Client"]


class State(Enum):
    NEW = auto()
    ADVERTISED = auto()
    SHARED = auto()
    KEYED = auto()
    MASKED = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. ``provide`` may come as soon as the session has started.
#: The server's ABORT may also reach a client that has answered everything, or that left by itself.
CLIENT_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.ADVERTISED},
    State.ADVERTISED: {"provide": State.ADVERTISED, "ROSTER": State.SHARED, "ABORT": State.ABORTED},
    State.SHARED: {"provide": State.SHARED, "DELIVER_SHARES": State.KEYED, "ABORT": State.ABORTED},
    State.KEYED: {"provide": State.KEYED, "mask": State.MASKED, "ABORT": State.ABORTED},
    State.MASKED: {"UNMASK_REQUEST": State.FINISHED, "ABORT": State.ABORTED},
    State.FINISHED: {"ABORT": State.ABORTED},
    State.ABORTED: {"ABORT": State.ABORTED},
}


class Client(Machine):
    """One client in one session: :meth:`start`, then :meth:`provide` and :meth:`receive` until it is finished.

    ``params``: what the session is about. ``me``: this client's id. ``minimum_survivors``: this client's own least
    number of clients in the sum (default: the threshold); it comes from local configuration, never from the server.
    ``minimum_threshold``: likewise for the threshold; ``minimum_holders``: for the holders of an opened shell.
    ``entropy``: replaced only by tests and vectors.

    Raises :class:`ConfigurationError` when ``me`` was not invited or the parameters lie below the local minimum.
    One object serves one session: a second vector under the same keys would reveal the difference of the two.
    """

    TRANSITIONS = CLIENT_TRANSITIONS
    INITIAL = State.NEW

    def __init__(
        self,
        params: Params,
        me: ClientId,
        *,
        minimum_survivors: int | None = None,
        minimum_threshold: int = 2,
        minimum_holders: int = 2,
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
        if params.threshold < minimum_threshold:
            raise ConfigurationError(
                f"the session's threshold is {params.threshold}; this client demands at least {minimum_threshold}"
            )
        if params.shells is not None and params.shells.minimum_holders < minimum_holders:
            raise ConfigurationError(
                f"the session opens shells over {params.shells.minimum_holders} holders; "
                f"this client demands at least {minimum_holders}"
            )
        self._params = params
        self._me = me
        self._entropy: Entropy = SystemEntropy() if entropy is None else entropy
        self._packed: RingVector | None = None
        self._seen: dict[int, bytes] = {}
        self._secrets: _Secrets | None = None
        self._roster: frozenset[ClientId] = frozenset()
        self._roster_hash = b""
        self._own_shares: tuple[bytes, ...] = ()  # of the self-mask seeds
        self._inbox: dict[ClientId, Sealed] = {}
        self._pair_secrets: dict[ClientId, bytes] = {}

    @property
    def me(self) -> ClientId:
        """This client's id."""
        return self._me

    def start(self) -> Sequence[Event]:
        """Exchange 1: draw fresh seeds, advertise the keys. SPEC §5.1."""
        self._advance("start")
        # [BIK+17, Fig. 4, round 0], with a third, never shared, seed for the channel key
        self._secrets = secrets = _Secrets(self._params, self._me, _seeds(self._entropy, self._params.tier(self._me)))
        return [self._send(Kind.ADVERTISE_KEYS, secrets.advertisement.encode())]

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """Give the integers to be summed: uint64[dimension], each <= max_value. Once; the array may be reused after.

        With shells: the integers of the shells that this client's tier holds, in order.
        Raises :class:`InvalidInputError` for values that do not fit; the session goes on and waits for others.
        """
        self._check("provide")
        if self._packed is not None:
            raise LocalProtocolError("the input was given already; one object serves one session")
        tier = self._params.tier(self._me)
        self._params.packing.check(values, tier)
        self._packed = self._params.packing.pack(values, tier)
        return self._mask(self._packed) if self.state is State.KEYED else ()

    def receive(self, frame: bytes) -> Sequence[Event]:
        """Take one frame from the server.

        Raises :class:`DecodeError` for bytes that are not a message of this session and :class:`FaultyServerError` for
        a message out of turn: nothing is answered, nothing changes. Raises :class:`ProtocolError` or
        :class:`AuthenticationError` for a message that the session cannot go on from: the secrets are dropped and the
        client takes no further part.
        """
        envelope = open_frame(
            frame,
            protocol=PROTOCOL,
            context=self._params.context_hash,
            recipient=self._me,
            limits=client_limits(self._params),
        )
        kind = Kind(envelope.kind)
        if self._seen.get(kind) == envelope.checksum and kind is not Kind.UNMASK_REQUEST:
            return ()  # the same frame again: transports may repeat
        if envelope.sender != SERVER or kind.name not in self.TRANSITIONS[self._state]:
            raise FaultyServerError(
                f"{kind.name} from party {envelope.sender} does not belong to state {self._state.name}: "
                "each step happens once, and only the server speaks to clients"
            )
        message = self._decode(kind, envelope)
        self._seen[kind] = envelope.checksum
        self._advance(kind.name)
        try:
            match message:
                case Roster():
                    return self._share_keys(message, masking.roster_hash(self._params, envelope.body))
                case EncryptedShares():
                    return self._take_shares(message)
                case UnmaskRequest():
                    return self._unmask(message)
                case Abort():
                    self._drop_secrets()
                    return [message.event()]
        except (ProtocolError, AuthenticationError):
            self._state = State.ABORTED
            self._drop_secrets()
            raise

    # ---- between messages ------------------------------------------------------------------------------------

    def suspend(self) -> bytes:
        """This client as bytes, secrets included, to go on elsewhere by :meth:`resume`; see :mod:`.suspension`.

        Raises :class:`LocalProtocolError` before the start, after the end, and while an input waits to be masked.
        """
        secrets = self._held()
        if self._packed is not None:
            raise LocalProtocolError("an input waits to be masked: suspend before it is given, or after it is sent")
        return SuspendedClient(
            state=self._state.value,
            me=self._me,
            minimum=self._minimum,
            seeds=(secrets.mask_seed, *secrets.self_seeds, secrets.channel_seed),
            roster_hash=self._roster_hash,
            own_shares=self._own_shares,
            seen=self._seen,
            roster=self._roster,
            boxes={client: sealed.shares for client, sealed in self._inbox.items()},
            pair_secrets=self._pair_secrets,
        ).encode(self._params)

    @classmethod
    def resume(cls, params: Params, data: Buffer) -> Client:
        """The client that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        saved = SuspendedClient.decode(data, params)
        client = cls(params, saved.me, minimum_survivors=saved.minimum)
        try:
            client._state = State(saved.state)
        except ValueError:
            raise DecodeError(f"a suspended client is in no state {saved.state}") from None
        client._secrets = _Secrets(params, saved.me, saved.seeds)
        client._roster_hash, client._own_shares, client._roster = saved.roster_hash, saved.own_shares, saved.roster
        client._seen = dict(saved.seen)
        # the boxes with the pairs' secrets were opened when they came
        client._inbox = {other: Sealed(box, None) for other, box in saved.boxes.items()}
        client._pair_secrets = dict(saved.pair_secrets)
        return client

    # ---- exchange 2: share keys -----------------------------------------------------------------------------

    def _share_keys(self, message: Roster, roster_hash: bytes) -> Sequence[Event]:
        params, secrets = self._params, self._held()
        if message.keys.get(self._me) != secrets.advertisement:
            raise FaultyServerError("the roster does not carry this client's own keys")
        self._enough(len(message.keys), "advertised keys")
        raw = [key for keys in message.keys.values() for key in (keys.channel_key, keys.mask_key)]
        if len(set(raw)) != len(raw):
            raise FaultyServerError("two keys of the roster are the same: someone stands in for another client")
        self._roster = frozenset(message.keys)
        self._roster_hash = roster_hash
        mask_shares = self._split(secrets.mask_seed)
        self_shares = [self._split(seed) for seed in secrets.self_seeds]
        mine = params.point(self._me) - 1
        self._own_shares = tuple(shares[mine] for shares in self_shares)
        boxes: dict[ClientId, Sealed] = {}
        for other, keys in message.keys.items():
            if other != self._me:
                at = params.point(other) - 1
                dealt = b"".join([mask_shares[at], *(shares[at] for shares in self_shares)])
                boxes[other] = self._seal_for(other, keys, dealt)
        return [self._send(Kind.SHARE_KEYS, EncryptedShares(boxes).encode())]

    def _split(self, secret: bytes) -> list[bytes]:
        """Shares for every invited client, in the order of their points."""
        params = self._params
        return shamir.split(secret, points=len(params.clients), threshold=params.threshold, entropy=self._entropy)

    def _seal_for(self, other: ClientId, keys: AdvertiseKeys, shares: bytes) -> Sealed:
        params, me = self._params, self._me
        info = masking.shares_box_info(params, self._roster_hash, me, other)
        shares_box = self._seal_to(other, keys.channel_key, shares, info)
        if me > other:
            return Sealed(shares_box, None)
        # The lower id makes the pair's secret and seals it to the higher one's mask key, so that either seed opens it.
        secret = masking.pair_secret(params, self._held().mask_seed, me, other)
        self._pair_secrets[other] = secret
        info = masking.pair_box_info(params, self._roster_hash, me, other)
        return Sealed(shares_box, self._seal_to(other, keys.mask_key, secret, info))

    def _seal_to(self, other: ClientId, key: bytes, plaintext: bytes, info: bytes) -> bytes:
        try:
            return self._entropy.seal(public_key(self._params.suite, key), plaintext, info)
        except DecodeError as error:
            raise FaultyClientError(f"client {other} advertised something that is no key: {error}", [other]) from None

    # ---- exchange 3: masked input ---------------------------------------------------------------------------

    def _take_shares(self, message: EncryptedShares) -> Sequence[Event]:
        params, secrets = self._params, self._held()
        if not message.boxes.keys() <= self._roster:
            raise FaultyServerError("shares were delivered from a client that is not on the roster")
        self._enough(len(message.boxes) + 1, "shared keys")
        self._inbox = message.boxes
        for other, sealed in message.boxes.items():
            if sealed.pair is None:
                continue
            info = masking.pair_box_info(params, self._roster_hash, other, self._me)
            try:
                secret = unseal(secrets.mask_private, sealed.pair, info)
            except AuthenticationError:
                raise FaultyClientError(
                    f"the mask secret from client {other} does not open (made for another roster or model, or damaged)",
                    [other],
                ) from None
            self._pair_secrets[other] = secret
        return [NeedInput()] if self._packed is None else self._mask(self._packed)

    def _mask(self, vector: RingVector) -> Sequence[Event]:
        """Mask ``vector`` in place and send it."""
        params = self._params
        self._advance("mask")
        me, masks = self._me, masking.Masks(params)
        # [BIK+17, §4.0.2]: y = x + PRG(b_i) + Σ_{j>i} PRG(m_ij) − Σ_{j<i} PRG(m_ij)
        for shell, seed in enumerate(self._held().self_seeds, start=1):
            masks.own(me, shell, seed, add=True)
        for other in self._inbox:
            masks.pair(self._pair_secrets[other], min(me, other), max(me, other), add=me < other)
        masks.apply(vector)
        self._packed = None
        self._pair_secrets = {}
        return [self._send(Kind.MASKED_INPUT, MaskedInput(vector).encode())]

    # ---- exchange 4: unmask ---------------------------------------------------------------------------------

    def _unmask(self, message: UnmaskRequest) -> Sequence[Event]:
        survivors, dropped = set(message.survivors), set(message.dropped)
        if survivors & dropped:
            raise FaultyServerError("a client is listed as surviving and as dropped: both would open its input")
        if self._me in dropped:
            raise FaultyServerError("this client is listed as dropped, but it sent its masked input")
        if survivors | dropped != self._inbox.keys() | {self._me}:
            raise FaultyServerError("the lists do not name exactly the clients that shared keys")
        self._enough(len(survivors), "survived")
        places = share_places(self._params, sorted(survivors | dropped), survivors)
        shares: list[bytes | None] = []
        for client, wanted in groupby(places, key=lambda place: place[0]):
            shares += self._shares_for(client, [shell for _, shell in wanted])
        answer = self._send(Kind.UNMASK_SHARES, UnmaskShares(tuple(shares)).encode())
        self._drop_secrets()
        return [answer, Completed()]

    def _shares_for(self, client: ClientId, shells: Sequence[int]) -> list[bytes | None]:
        """A survivor's self-mask shares of opened shells, or (shell 0) a dropped one's mask-seed share; never both."""
        if client == self._me:
            return [self._own_shares[shell - 1] for shell in shells]
        info = masking.shares_box_info(self._params, self._roster_hash, client, self._me)
        try:
            dealt = unseal(self._held().channel_private, self._inbox[client].shares, info)
        except AuthenticationError:
            # told to the server as missing; it names the dealer if the others' shares do not suffice
            return [None for _ in shells]
        return [_share_in_field(dealt[shell * SHARE_BYTES : (shell + 1) * SHARE_BYTES]) for shell in shells]

    # ---- the rest -------------------------------------------------------------------------------------------

    def _enough(self, count: int, what: str) -> None:
        if count < self._minimum:
            raise TooFewClientsError(f"{count} clients {what}; this client takes part with at least {self._minimum}")

    def _held(self) -> _Secrets:
        if self._secrets is None:
            raise LocalProtocolError("this session is over: its secrets are gone")
        return self._secrets

    def _drop_secrets(self) -> None:
        self._secrets = self._packed = None
        self._pair_secrets, self._inbox, self._own_shares = {}, {}, ()

    def _send(self, kind: Kind, body: bytes | memoryview) -> Send:
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._params.context_hash, self._me, SERVER, body))

    def _decode(self, kind: Kind, envelope: Envelope) -> Roster | EncryptedShares | UnmaskRequest | Abort:
        body, params = envelope.body, self._params
        if kind is Kind.ROSTER:
            return Roster.decode(body, params)
        if kind is Kind.DELIVER_SHARES:
            return EncryptedShares.decode(body, params, owner=self._me, owner_sends=False)
        if kind is Kind.UNMASK_REQUEST:
            return UnmaskRequest.decode(body, params)
        return Abort.decode(body)


def _seeds(entropy: Entropy, shells: int) -> tuple[bytes, ...]:
    """The mask seed, the self seeds of the client's shells, the channel seed."""
    return tuple(entropy.token(SEED_BYTES) for _ in range(shells + 2))


def _share_in_field(share: bytes) -> bytes | None:
    """The share, or ``None``: passing on what is no share would make this client the suspect."""
    try:
        shamir.share_from_bytes(share)
    except DecodeError:
        return None
    return share


class _Secrets:
    """The three seeds of one client in one session and the keys derived from them."""

    def __init__(self, params: Params, me: ClientId, seeds: tuple[bytes, ...]) -> None:
        # s_i and b_i, one of these for each shell that the client holds, are Shamir-shared; c_i never is
        self.mask_seed, *self_seeds, self.channel_seed = seeds
        self.self_seeds = tuple(self_seeds)
        self.mask_private: PrivateKey
        self.mask_private, mask_public = masking.mask_key_pair(params, me, self.mask_seed)
        self.channel_private, channel_public = masking.channel_key_pair(params, me, self.channel_seed)
        commitments = (
            masking.self_commitment(params, me, seed, shell) for shell, seed in enumerate(self.self_seeds, start=1)
        )
        self.advertisement = AdvertiseKeys(channel_public.raw, mask_public.raw, b"".join(commitments))

    def __repr__(self) -> str:
        return "<redacted>"
