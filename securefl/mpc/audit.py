"""Checking the helper: keys of a batch that was dealt and not used are opened, its deals recomputed. SPEC mpc §10.

What the helper sends in a fresh batch is a function of the two stream keys of that batch. To audit it the servers tell
each other those keys, run the helper's program themselves and compare byte for byte. The helper is asked for the batch
like for any other, so when it deals it cannot know whether it will be checked; the keys of other batches stay secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from securefl.errors import FaultyPartyError
from securefl.mpc.channel import HELPER, Channel, Traffic
from securefl.mpc.party import Party
from securefl.primitives.prg import KEY_BYTES
from securefl.wire import Buffer

__all__ = ["Audited", "audit"]


class Audited(Protocol):
    """Who runs commands, and can run one as the helper would."""

    party: Party

    def run_as_helper(self, data: Buffer, helper: Party) -> None: ...


@dataclass
class _Comparing:
    """The channel of the recomputed helper: what it would send to ``me`` must be what the helper did send."""

    me: int
    links: Channel
    party: int = HELPER
    traffic: Mapping[int, Traffic] = field(default_factory=dict)

    def send(self, to: int, *buffers: Buffer) -> None:
        if to != self.me:
            return
        expected = b"".join(buffers)
        if not hmac.compare_digest(self.links.receive(HELPER, len(expected)), expected):
            raise FaultyPartyError(
                "the helper dealt something else than its streams give: nothing it dealt can be trusted", HELPER
            )

    def receive(self, sender: int, size: int) -> memoryview:
        raise FaultyPartyError("a helper receives nothing", HELPER)

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        return self.receive(sender, limit)

    def close(self) -> None:
        pass


def audit(service: Audited, batch: int, command: bytes) -> None:
    """Check what the helper deals for ``command``, a fresh batch, which is spent with it. Servers only; one round.

    Raises :class:`FaultyPartyError` when the helper dealt anything else.
    """
    party = service.party
    digest = hashlib.sha256(command).digest()
    party.begin(batch, digest)
    mine = party.batch_key(HELPER, batch, digest)
    theirs = party.exchange(np.frombuffer(mine, np.uint8)).tobytes()
    keys = {party.me: mine, party.peer: theirs[:KEY_BYTES]}
    service.run_as_helper(command, Party.with_keys(_Comparing(party.me, party.channel), keys))
