"""The operations of protocols/shells: parameters, which shells open, masked inputs and the sums of opened shells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.audit.checks.secagg_sessions import params_of
from securefl.machine import Shells
from securefl.primitives.kem import seal
from securefl.secagg import masking
from securefl.secagg.messages import Sealed
from securefl.secagg.params import Params
from securefl.secagg.unmasking import OpenedSeeds, remove_masks
from securefl.types import PartyId, RingVector

__all__ = ["CHECKS"]


def _params_of(given: Mapping[str, Any]) -> Params:
    shells = given["shells"]
    made = Shells(tuple(shells["sizes"]), tuple(shells["tiers"]), shells["minimum_holders"])
    return params_of({name: value for name, value in given.items() if name not in ("shells", "roster")}, shells=made)


def _words(decimal: list[str]) -> RingVector:
    return np.array([int(word) for word in decimal], dtype=np.uint64)


def _params(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: _params_of(case.input))
        return
    expect("the context hash", _params_of(case.input).context_hash.hex(), case.expected["context_hash"])


def _opened(case: Case) -> None:
    found = _params_of(case.params).opened([PartyId(i) for i in case.input["survivors"]])
    expect("the opened shells", list(found), case.expected["shells"])


def _masked_input(case: Case) -> None:
    params, me = _params_of(case.params), PartyId(case.input["client"])
    tier, masks = params.tier(me), masking.Masks(params)
    seeds = [bytes.fromhex(seed) for seed in case.input["self_seeds"]]
    for shell, seed in enumerate(seeds, start=1):
        masks.own(me, shell, seed, add=True)
    for name, secret in case.input["pair_secrets"].items():
        other = PartyId(int(name))
        masks.pair(bytes.fromhex(secret), min(me, other), max(me, other), add=me < other)
    values = np.array(case.input["values"], dtype=np.uint64)
    params.packing.check(values, tier)
    words = params.packing.pack(values, tier)
    masks.apply(words)
    commitments = [masking.self_commitment(params, me, seed, shell).hex() for shell, seed in enumerate(seeds, start=1)]
    expect("the commitments", commitments, case.expected["commitments"])
    expect("the words", [str(word) for word in words.tolist()], case.expected["words"])


def _sum(case: Case) -> None:
    params, roster = _params_of(case.params), bytes.fromhex(case.params["roster"])
    total = np.zeros(params.packing.words, dtype=np.uint64)
    survivors = tuple(PartyId(int(name)) for name in case.input["masked"])
    for words in map(_words, case.input["masked"].values()):
        total[: words.size] += words
    mask_seeds = {PartyId(int(name)): bytes.fromhex(seed) for name, seed in case.input["mask_seeds"].items()}
    boxes: dict[PartyId, dict[PartyId, Sealed]] = {client: {} for client in survivors}
    for name, secret in case.input["pair_secrets"].items():
        low, high = (PartyId(int(part)) for part in name.split(","))
        _, public = masking.mask_key_pair(params, high, mask_seeds[high])
        box = seal(public, bytes.fromhex(secret), masking.pair_box_info(params, roster, low, high))
        boxes[low][high] = Sealed(b"", box)
    self_seeds = {PartyId(int(name)): bytes.fromhex("".join(s)) for name, s in case.input["self_seeds"].items()}
    remove_masks(params, total, boxes, roster, survivors, OpenedSeeds(self_seeds, mask_seeds))
    values = params.packing.unpack(total, [params.tier(client) for client in survivors])
    expect("the opened shells", list(params.opened(survivors)), case.expected["shells"])
    expect("the sums", [str(value) for value in values.tolist()], case.expected["values"])


CHECKS: Final[Mapping[str, Check]] = {
    "params": _params,
    "opened": _opened,
    "masked_input": _masked_input,
    "sum": _sum,
}
