"""The client of the CKKS sum, without IO. SPEC: protocols/ckks-sum/SPEC.md §8.1."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from securefl.ckks.cipher import Cipher, PublicCipher, SharedCipher, encrypt, public_key_of
from securefl.ckks.keys import Key, key_id_of
from securefl.ckks.messages import Kind, PublicKey, open_signed, seal_signed
from securefl.ckks.params import KEY_HOLDER, KeyModel, Params
from securefl.errors import AuthenticationError, ConfigurationError, FaultyServerError
from securefl.machine import Completed, Event, Machine, NeedInput, Send, TransitionTable
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.identity import Directory, Identity
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer

__all__ = ["CLIENT_TRANSITIONS", "Client"]


class State(Enum):
    NEW = auto()
    KEY = auto()
    ENCRYPT = auto()
    FINISHED = auto()


#: Triggers: message kinds received, and local calls.
CLIENT_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.KEY},
    State.KEY: {"PUBLIC_KEY": State.ENCRYPT},
    State.ENCRYPT: {"provide": State.FINISHED},
    State.FINISHED: {},
}


class Client(Machine):
    """One client in one session: waits for the key holder's key, encrypts its integers, is done.

    ``identity``: its signing key. ``directory``: must hold the key holder's public key. ``shared``: the secret key
    under ``shared_key``, else ``None``; ``shared_key`` without it, or it without ``shared_key``, is a
    :class:`ConfigurationError`.
    """

    TRANSITIONS = CLIENT_TRANSITIONS
    INITIAL = State.NEW

    def __init__(
        self,
        params: Params,
        me: ClientId,
        identity: Identity,
        directory: Directory,
        *,
        shared: Key | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        super().__init__()
        if me not in params:
            raise ConfigurationError(f"client {me} is not among the invited clients")
        if (shared is not None) is not (params.key_model is KeyModel.SHARED_KEY):
            raise ConfigurationError("clients hold the secret key under shared_key, and under no other key model")
        self._params, self._me, self._identity, self._directory = params, me, identity, directory
        self._shared, self._entropy = shared, entropy or SystemEntropy()
        self._key_id = b""
        self._cipher: Cipher | None = None

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take the key of this session; then the client asks for its integers.

        Raises :class:`DecodeError`, :class:`AuthenticationError` for what the key holder did not sign, and
        :class:`FaultyServerError` for a key that is not what its id says; nothing changes.
        """
        limits = {Kind.PUBLIC_KEY: PublicKey.length(self._params)}
        kind, sender, body = open_signed(self._params, self._directory, frame, self._me, limits)
        if sender != KEY_HOLDER:
            raise AuthenticationError(f"party {sender} is not the key holder")
        message = PublicKey.decode(body, self._params)
        if self._key_id == message.key_id:
            return ()  # the same key again: transports may repeat
        self._check(kind.name)
        self._cipher = self._cipher_of(message)
        self._key_id = message.key_id
        self._advance(kind.name)
        return [NeedInput()]

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """Encrypt ``values``, uint64[dimension]; with shells, those of the shells that this client holds.

        Raises :class:`InvalidInputError` for others, before anything else.
        """
        self._check("provide")
        tier = self._params.tier(self._me)
        self._params.packing.check(values, tier)
        assert self._cipher is not None  # noqa: S101 - the table leads here only with one
        self._advance("provide")
        body = encrypt(self._params, self._cipher, values, tier)
        head = self._key_id + self._cipher.seed
        self._cipher = None
        frame = seal_signed(self._params, self._identity, Kind.ENCRYPTED_INPUT, self._me, SERVER, head, body)
        return [Send(SERVER, frame), Completed()]

    def _cipher_of(self, message: PublicKey) -> Cipher:
        params = self._params
        if self._shared is not None:
            if message.key_id != self._shared.id:
                raise FaultyServerError("the key holder announces another key than the one this client was given")
            return SharedCipher(params, self._me, self._shared.multiplier, self._entropy)
        if key_id_of(params.parameters, params.key_model, message.polynomials) != message.key_id:
            raise FaultyServerError("a public key does not match its id")
        return PublicCipher(params, public_key_of(params.parameters, message.polynomials))
