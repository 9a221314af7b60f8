"""Vectors of secret-shared computation: operations, and a whole session. SPEC: protocols/mpc/SPEC.md §2 to §9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import numpy as np

from securefl.audit.checks import Case, Check, expect
from securefl.audit.checks.mpc import CHECKS as OPERATIONS
from securefl.audit.checks.mpc import Links
from securefl.cluster.control import CLIENT, serve
from securefl.errors import LostPartyError
from securefl.mpc.channel import PARTIES, memory_channels
from securefl.mpc.fixed import PRODUCT_FRACTION, decode
from securefl.mpc.party import join
from securefl.mpc.service import Service
from securefl.primitives.kem import PublicKey

__all__ = ["CHECKS"]


class _Secrets:
    """An Entropy that gives a party the secrets of its pairs, in the order in which it sends them."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._left = list(secrets)

    def token(self, length: int) -> bytes:
        return self._left.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        raise LookupError("nothing is sealed here")


def _inference(case: Case) -> None:
    """Three services get a client's messages; all that they send must be what the vector says."""
    secrets = {pair: bytes.fromhex(secret) for pair, secret in case.input["secrets"].items()}
    drawn: tuple[list[bytes], ...] = ([secrets["0-1"]], [], [secrets["0-2"], secrets["1-2"]])
    links, controls = Links(None), memory_channels(PARTIES + 1, deadline=10.0)
    session = bytes.fromhex(case.params["session"])

    def work(me: int) -> None:
        try:
            with suppress(LostPartyError):  # the client leaves without a word
                serve(Service(join(links.channels[me], session, _Secrets(drawn[me]))), controls[me])
        finally:
            links.channels[me].close()
            controls[me].close()

    answers = []
    with ThreadPoolExecutor(PARTIES) as pool:
        futures = [pool.submit(work, me) for me in range(PARTIES)]
        try:
            for me in range(PARTIES):
                for message in case.input["told"][str(me)]:
                    controls[CLIENT].send(me, bytes.fromhex(message))
            answers = [bytes(controls[CLIENT].receive_up_to(me, 1 << 16)) for me in range(PARTIES)]
        finally:
            controls[CLIENT].close()
        for future in futures:
            future.result()
    links.sent |= {f"{me}>{CLIENT}": [message.hex()] for me, message in enumerate(answers)}
    for link, messages in case.expected["messages"].items():
        expect(f"the messages {link}", links.sent.get(link), messages)
    expect("links that carry anything", sorted(links.sent), sorted(case.expected["messages"]))
    size = 8 * len(case.expected["values"])
    total = sum((np.frombuffer(message[-size:], "<u8") for message in answers), np.zeros(1, np.uint64))
    expect("the result", [value.hex() for value in decode(total, PRODUCT_FRACTION).tolist()], case.expected["values"])


CHECKS: Final[Mapping[str, Check]] = {**OPERATIONS, "inference": _inference}
