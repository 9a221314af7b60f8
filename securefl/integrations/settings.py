"""What a server asks of its protected sums, and the invitations that follow from it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from securefl.ckks import KeyModel
from securefl.encoding.layout import TensorSpec
from securefl.errors import ConfigurationError, TooFewClientsError
from securefl.fl.protections import THRESHOLD, key_model_named
from securefl.integrations.carried import needs_helper
from securefl.integrations.compression import Compressor
from securefl.integrations.invitation import Invitation
from securefl.integrations.roll import NO_NAMES, Names
from securefl.integrations.terms import CompressionTerms, NoiseTerms

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The keyword arguments of ``SecureGrid`` and ``MaskedFedAvg`` that shape a sum.

    ``protect``: "masked", "ckks" or "shared", or "plain" to compare with. ``value_bits``, ``clip_range``: the grid;
    values of an update beyond ±clip_range are cut. ``clip_norm``: ℓ2 bound on a whole update; 0: none.
    ``max_weight``: largest weight (number of examples) of a client. ``threshold``: least number of survivors, a count
    or a fraction of the cohort; never less than a majority. ``suite``: key encapsulation. ``metrics``,
    ``evaluate_metrics``: name → bound of the metrics that are summed with the update, and of those that an evaluation
    sums; others do not leave the clients.
    ``key_model``, ``flooding``: under ckks ("threshold" needs no helper, "key_holder" and "shared_key" do).
    ``identities``: name the clients' public keys in masked sums too, for clients that have pinned theirs.
    ``keep``: tensors that are not summed: the global model's stay. ``groups``: how many sums a round has; the strategy
    then works on the groups' means, and the server learns each of them. ``compression``: keys of the configuration's
    [compression], for what an update is reduced to; ``None``: the grid alone.
    """

    protect: str = "masked"
    key_model: str = KeyModel.KEY_HOLDER.label
    flooding: bool = False
    identities: bool = False
    value_bits: int = 16
    clip_range: float = 1.0
    clip_norm: float = 0.0
    max_weight: int = 1024
    threshold: float | int = 0.6
    suite: str = "mlkem768-x25519"
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluate_metrics: Mapping[str, float] = field(default_factory=dict)
    keep: Sequence[str] = ()
    groups: int = 1
    compression: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.compression is not None:
            Compressor(self.compression)
            if self.groups != 1:
                raise ConfigurationError("the groups of a round have scales of their own: compression is for one sum")
        if self.protect == "ckks" and self.key_model != THRESHOLD:
            key_model_named(self.key_model)
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise ConfigurationError(f"groups must be a whole number of at least 1, got {self.groups!r}")
        fraction = isinstance(self.threshold, float) and 0 < self.threshold <= 1
        count = type(self.threshold) is int and self.threshold >= 2
        if not fraction and not count:
            raise ConfigurationError(
                f"threshold must be a fraction in (0, 1] or a count of at least 2, got {self.threshold!r}"
            )
        for where in (self.metrics, self.evaluate_metrics):
            for name, bound in where.items():
                if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not 0 < bound < math.inf:
                    raise ConfigurationError(
                        f"the bound of the metric {name!r} must be a number above 0, got {bound!r}"
                    )
        if not 0 <= self.clip_norm < math.inf:
            raise ConfigurationError(f"clip_norm must be a finite number of at least 0, got {self.clip_norm!r}")

    @property
    def named(self) -> bool:
        """Whether invitations name public keys, so that a roll call comes first."""
        return self.identities or self.protect in ("ckks", "shared")

    @property
    def helped(self) -> bool:
        """Whether sums need a key holder or second server."""
        return needs_helper(self.protect, self.key_model)

    def threshold_for(self, clients: int) -> int:
        """The threshold of a cohort: a majority at least."""
        wanted = self.threshold if isinstance(self.threshold, int) else Fraction(str(self.threshold)) * clients
        return max(math.ceil(wanted), clients // 2 + 1, 2)

    def invitation(
        self,
        kind: str,
        session: bytes,
        round: int,
        clients: int,
        *,
        weight_key: str,
        layout: tuple[TensorSpec, ...],
        model_hash: bytes,
        arguments_hash: bytes,
        noise: NoiseTerms | None = None,
        compression: CompressionTerms | None = None,
        names: Names = NO_NAMES,
    ) -> Invitation:
        """One sum's. Raises :class:`TooFewClientsError` when the cohort is below the threshold."""
        threshold = self.threshold_for(clients)
        if noise is not None:
            threshold = max(threshold, noise.minimum_survivors)
        if threshold > clients or clients < 2:
            raise TooFewClientsError(f"{clients} clients are there; the threshold is {threshold}")
        metrics = self.metrics if kind == "train" else self.evaluate_metrics
        return Invitation(
            kind=kind,
            protect=self.protect,
            suite=self.suite,
            session=session,
            round=round,
            clients=clients,
            threshold=threshold,
            value_bits=self.value_bits,
            clip_range=float(self.clip_range),
            clip_norm=float(self.clip_norm),
            max_weight=self.max_weight,
            weight_key=weight_key,
            layout=layout if kind == "train" else (),
            metrics=tuple((name, float(metrics[name])) for name in sorted(metrics)),
            model_hash=model_hash,
            arguments_hash=arguments_hash,
            noise=noise,
            compression=compression if kind == "train" else None,
            key_model=self.key_model if self.protect == "ckks" else "",
            flooding=self.flooding,
            identities=names.clients,
            helper=names.helper,
            server=names.server,
        )

    def split(self, nodes: Sequence[int]) -> list[list[int]]:
        """The nodes of each sum, dealt at random; one sum of all of them unless there are ``groups``."""
        if self.groups == 1:
            return [sorted(nodes)]
        shuffled = sorted(nodes, key=lambda _: os.urandom(16))
        return [sorted(shuffled[at :: self.groups]) for at in range(self.groups)]
