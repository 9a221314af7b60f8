"""What the server proposes for one sum, in one encoding: every client of the sum is bound to the same bytes.

The invitation's hash goes into the round context, hence into every key and frame: clients that were told different
things (another threshold, clip range, model, list of metrics …) hold masks that do not cancel, and frames that the
others refuse. Nothing in it is trusted: a client holds it against its own
:class:`~securefl.integrations.policy.Policy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from securefl.encoding.layout import Layout, TensorSpec
from securefl.errors import DecodeError
from securefl.integrations.terms import (
    CompressionTerms,
    NoiseTerms,
    read_flag,
    read_float,
    read_text,
    write_float,
)
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import ClientId, PartyId
from securefl.wire import Buffer, Reader, Writer

__all__ = ["METRICS", "Invitation"]

VERSION: Final = 2
#: The name under which metrics stand beside the model's tensors.
METRICS: Final = "securefl.metrics"
MAX_TENSORS: Final = 2**16
MAX_RANK: Final = 32
KEY_BYTES: Final = 32
MAX_INVITATION_BYTES: Final = 2**24
#: Of one sum; checked before anything is made for each of them.
MAX_CLIENTS: Final = 2**16


@dataclass(frozen=True, slots=True)
class Invitation:
    """One sum. ``clients``: how many are invited; their ids are 1 … clients.

    ``kind``: "train" or "evaluate". ``session``: 1 to 64 bytes naming run and group; ``round``: counts the sums of
    this session. ``layout``: the tensors of an update that are summed, in order. ``metrics``: (name, bound): summed
    with them, each clipped to ±bound. ``weight_key``: the metric that is the client's weight. ``max_weight``: largest
    weight. ``model_hash``: of all tensors the clients get; ``arguments_hash``: of the configuration they train with.
    ``key_model``, ``flooding``: under ckks. ``identities``: public signing keys, one per client in the order of their
    ids, or none; ``helper``, ``server``: those of the key holder or second server, and of the aggregator, or empty.
    """

    kind: str
    protect: str
    suite: str
    session: bytes
    round: int
    clients: int
    threshold: int
    value_bits: int
    clip_range: float
    clip_norm: float
    max_weight: int
    weight_key: str
    layout: tuple[TensorSpec, ...]
    metrics: tuple[tuple[str, float], ...]
    model_hash: bytes
    arguments_hash: bytes
    noise: NoiseTerms | None = None
    compression: CompressionTerms | None = None
    key_model: str = ""
    flooding: bool = False
    identities: tuple[bytes, ...] = ()
    helper: bytes = b""
    server: bytes = b""

    @property
    def ids(self) -> tuple[ClientId, ...]:
        """The clients' ids, ascending."""
        return tuple(PartyId(i) for i in range(1, self.clients + 1))

    @property
    def summed(self) -> Layout:
        """Everything that is summed: the update's tensors, then the metrics as one more."""
        extra = (TensorSpec(METRICS, (len(self.metrics),), "float64"),) if self.metrics else ()
        return Layout((*self.layout, *extra))

    @property
    def digest(self) -> bytes:
        """32 bytes over everything."""
        return tuple_hash(Label.INVITATION, self.encode())

    def encode(self) -> bytes:
        """The one encoding."""
        writer = Writer().u8(VERSION)
        for text in (self.kind, self.protect, self.suite, self.key_model, self.weight_key):
            writer.blob(text.encode())
        writer.blob(self.session).u32(self.round).u32(self.clients).u32(self.threshold).u8(self.value_bits)
        write_float(write_float(writer, self.clip_range), self.clip_norm).u64(self.max_weight)
        writer.u32(len(self.layout))
        for spec in self.layout:
            writer.blob(spec.name.encode()).blob(spec.dtype.encode()).u32(len(spec.shape))
            for length in spec.shape:
                writer.u64(length)
        writer.u32(len(self.metrics))
        for name, bound in self.metrics:
            write_float(writer.blob(name.encode()), bound)
        writer.raw(self.model_hash, 32).raw(self.arguments_hash, 32).u8(self.flooding)
        writer.blob(b"".join(self.identities)).blob(self.helper).blob(self.server)
        for terms in (self.noise, self.compression):
            writer.u8(terms is not None)
            if terms is not None:
                terms.write(writer)
        return writer.done()

    @classmethod
    def decode(cls, data: Buffer) -> Invitation:
        """Raises :class:`DecodeError` for anything but the encoding of an invitation."""
        if memoryview(data).nbytes > MAX_INVITATION_BYTES:
            raise DecodeError(f"an invitation of more than {MAX_INVITATION_BYTES} bytes")
        reader = Reader(data)
        version = reader.u8()
        if version != VERSION:
            raise DecodeError(f"an invitation of version {version}; this is version {VERSION}")
        kind, protect, suite, key_model, weight_key = (read_text(reader) for _ in range(5))
        session, round, clients, threshold = bytes(reader.blob(limit=64)), reader.u32(), reader.u32(), reader.u32()
        if clients > MAX_CLIENTS:
            raise DecodeError(f"an invitation of {clients} clients; at most {MAX_CLIENTS} are in a sum")
        value_bits, clip_range, clip_norm = reader.u8(), read_float(reader), read_float(reader)
        max_weight = reader.u64()
        layout = tuple(_spec(reader) for _ in range(reader.count(limit=MAX_TENSORS, item_bytes=12)))
        count = reader.count(limit=MAX_TENSORS, item_bytes=12)
        metrics = tuple((read_text(reader), read_float(reader)) for _ in range(count))
        if any(bound <= 0 for _, bound in metrics):
            raise DecodeError("the bound of a metric is above 0")
        hashes = bytes(reader.raw(32)), bytes(reader.raw(32))
        flooding = read_flag(reader)
        identities = _keys(reader, MAX_INVITATION_BYTES)
        helper, server = (b"".join(_keys(reader, KEY_BYTES)) for _ in range(2))
        noise = NoiseTerms.read(reader) if read_flag(reader) else None
        compression = CompressionTerms.read(reader) if read_flag(reader) else None
        reader.end()
        invitation = cls(
            kind,
            protect,
            suite,
            session,
            round,
            clients,
            threshold,
            value_bits,
            clip_range,
            clip_norm,
            max_weight,
            weight_key,
            layout,
            metrics,
            *hashes,
            noise,
            compression,
            key_model,
            flooding,
            identities,
            helper,
            server,
        )
        names = [spec.name for spec in layout] + [METRICS]
        labels = [name for name, _ in metrics]
        if len(set(names)) < len(names) or len(set(labels)) < len(labels):
            raise DecodeError("an invitation names a tensor or a metric twice")
        keys = [*identities, *filter(None, (helper, server))]
        if (identities and len(identities) != clients) or len(set(keys)) != len(keys):
            raise DecodeError("an invitation names one public key per client, all different, or none")
        if not invitation.summed.tensors:
            raise DecodeError("an invitation to sum nothing")
        return invitation


def _spec(reader: Reader) -> TensorSpec:
    name, dtype = read_text(reader), read_text(reader)
    if dtype not in ("float16", "float32", "float64"):
        raise DecodeError(f"tensor {name!r} is of {dtype!r}, which is not summed")
    shape = tuple(reader.u64() for _ in range(reader.count(limit=MAX_RANK, item_bytes=8)))
    if math.prod(shape) >= 2**40:
        raise DecodeError(f"tensor {name!r} has {math.prod(shape)} values")
    return TensorSpec(name, shape, dtype)


def _keys(reader: Reader, limit: int) -> tuple[bytes, ...]:
    """Public keys, 32 bytes each."""
    data = bytes(reader.blob(limit=limit))
    if len(data) % KEY_BYTES:
        raise DecodeError(f"public keys of {len(data)} bytes; each has {KEY_BYTES}")
    return tuple(data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES))
