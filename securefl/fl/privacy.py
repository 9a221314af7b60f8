"""User-level differential privacy of a run: the mechanism of each round, its charge, and what the report says of it.

Every client counts with weight 1 here: weights would be one more thing to protect and to pay for. The mean is the
noisy sum over the number of survivors, which the server knows anyway.

The order in a round: the ledger is asked whether the round could be paid for → the protected sum → the charge for the
realised survivors is committed → the sum is decoded and released → the release is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.dp.accountant import event_epsilon
from securefl.dp.adaptive import AdaptiveClip
from securefl.dp.calibration import calibrate_event
from securefl.dp.central import CentralNoise
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.events import Event, NeighboringRelation, SelfComposed
from securefl.dp.filters import Budget, FilterKind
from securefl.dp.local import LocalNoise
from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint, Quantized
from securefl.errors import ConfigurationError
from securefl.fl.budget import KEPT, BudgetedRun
from securefl.fl.config import PrivacyConfig
from securefl.fl.interfaces import Coder, Contribution, RoundPrivacy
from securefl.machine import SumResult
from securefl.primitives.entropy import SystemEntropy
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import Tensors, Update

__all__ = ["NoisyCoder", "UserPrivacy"]

Mechanism: TypeAlias = DistributedSkellam | CentralNoise | LocalNoise

#: What a locally noised value may reach, in noise stddevs beyond the clip norm; clamping there is post-processing.
_LOCAL_RANGE = 6.0


@dataclass
class NoisyCoder:
    """Updates to integers and their sum to a mean, with noise: takes the place of the weighted pipeline.

    ``adaptive``: the state of the clip norm, whose bit rides as one more coordinate; ``None``: a fixed clip norm.
    ``next_clip``: its next state, once the sum is decoded.
    """

    layout: Layout
    mechanism: Mechanism
    value_bits: int
    adaptive: AdaptiveClip | None = None
    next_clip: AdaptiveClip | None = None

    @property
    def dimension(self) -> int:
        """Integers per client."""
        return self.layout.dimension + (self.adaptive is not None)

    @property
    def max_value(self) -> int:
        """The largest integer of a client, noise included."""
        return self._grid.max_value if isinstance(self.mechanism, LocalNoise) else self.mechanism.max_value

    @property
    def _grid(self) -> FixedPoint:
        """The grid of locally noised values."""
        assert isinstance(self.mechanism, LocalNoise)  # noqa: S101 - callers check
        stddev = self.mechanism.noise_multiplier * self.mechanism.clip_norm
        return FixedPoint(self.mechanism.clip_norm + _LOCAL_RANGE * stddev, self.value_bits)

    @property
    def encoding(self) -> bytes:
        """32 bytes over layout, mechanism and clip norm: clients that differ in one must not be summed."""
        return tuple_hash(Label.GRID, b"private", self.layout.schema_hash, *map(str.encode, self._public()))

    def _public(self) -> tuple[str, ...]:
        bits = str(self.value_bits), str(self.dimension)
        clip = () if self.adaptive is None else (float(self.adaptive.clip_norm).hex(),)
        if isinstance(self.mechanism, LocalNoise):
            return ("local", float(self._grid.clip_range).hex(), *bits)
        kind = "central" if isinstance(self.mechanism, CentralNoise) else "distributed"
        return (kind, float(self.mechanism.scale).hex(), float(self.mechanism.clip_norm).hex(), *bits, *clip)

    def encode(self, contribution: Contribution) -> Quantized:
        """uint64[dimension]; ``clipped`` is 1 when the update was longer than the clip norm.

        Noise and rounding draw from the operating system, whatever the run's seed.
        """
        flat = self.layout.flatten(contribution.tensors).astype(np.float64)
        norm = float(np.linalg.norm(flat))
        joint = flat if self.adaptive is None else self._with_bit(flat, norm, self.adaptive)
        clip_norm = self.mechanism.clip_norm if self.adaptive is None else self.adaptive.clip_norm
        clipped = self.layout.dimension * int(norm > clip_norm)
        if isinstance(self.mechanism, LocalNoise):
            noisy = self.mechanism.privatize(joint)
            seed = SystemEntropy().token(32)
            return Quantized(self._grid.encode(noisy, seed=seed, clip=True).values, clipped)
        return Quantized(self.mechanism.encode(joint), clipped)

    @staticmethod
    def _with_bit(flat: Update, norm: float, adaptive: AdaptiveClip) -> Update:
        return np.append(clip_to_norm(flat, adaptive.clip_norm), adaptive.bit(norm))

    def decode(self, result: SumResult) -> tuple[Tensors, int]:
        """The noisy mean over the survivors, and their number. The release must have been charged."""
        survivors = len(result.survivors)
        noisy = self._noisy_sum(result, survivors)
        if self.adaptive is not None:
            self.next_clip = self.adaptive.update(float(noisy[-1]), survivors)
        return self.layout.unflatten(noisy[: self.layout.dimension] / survivors), survivors

    def _noisy_sum(self, result: SumResult, survivors: int) -> NDArray[np.float64]:
        if isinstance(self.mechanism, LocalNoise):
            return self._grid.decode(result.values, survivors)
        if isinstance(self.mechanism, CentralNoise):
            return self.mechanism.release(result.values, survivors)
        return self.mechanism.decode(result.values, survivors)


class UserPrivacy(BudgetedRun):
    """One run's mechanism, budget and ledger.

    ``dimension``: of the update. ``population``: clients of the run. ``minimum_survivors``: of a round.
    ``rounds``: planned. ``value_bits``: of a client's integers.

    Raises :class:`ConfigurationError` when no noise or ring can meet the budget.
    """

    def __init__(
        self,
        config: PrivacyConfig,
        *,
        dimension: int,
        population: int,
        minimum_survivors: int,
        rounds: int,
        value_bits: int,
    ) -> None:
        self.config = config
        self.minimum_survivors = minimum_survivors
        self.sampling_probability = 1.0 if config.sampling_probability is None else config.sampling_probability
        self._dimension, self._population, self._value_bits = dimension, population, value_bits
        self._rounds = rounds
        self._local_epsilon = config.epsilon
        # local noise is judged under replacement: the message, not the sum, is what an adversary sees
        local = config.noise == "local"
        self._relation = NeighboringRelation.REPLACE_ONE if local else NeighboringRelation.of(config.neighboring)
        self.noise_multiplier = self._calibrate()
        self.adaptive = self._adaptive(config.clip_norm) if config.adaptive else None
        self.mechanism = self._mechanism(self.noise_multiplier, self.adaptive)
        super().__init__(self._budget(self.mechanism))

    # ---- set-up ---------------------------------------------------------------------------------------------

    def _mechanism(self, noise_multiplier: float, adaptive: AdaptiveClip | None = None) -> Mechanism:
        c = self.config
        clip_norm = c.clip_norm if adaptive is None else adaptive.joint_norm
        dimension = self._dimension + (adaptive is not None)
        if c.noise == "local":
            return LocalNoise(self._local_epsilon, KEPT * c.delta, c.clip_norm, self._dimension, self._rounds)
        if c.noise == "central":
            return CentralNoise(clip_norm, dimension, noise_multiplier, self._value_bits)
        return DistributedSkellam(
            clip_norm,
            dimension,
            noise_multiplier,
            clients=self._population,
            minimum_survivors=self.minimum_survivors,
            colluders=c.colluders,
            value_bits=self._value_bits,
        )

    def _adaptive(self, clip_norm: float) -> AdaptiveClip:
        expected = self._population * self.sampling_probability
        return AdaptiveClip(
            clip_norm,
            self.noise_multiplier,
            # a twentieth of the cohort [Andrew et al. 2021, §3.2], and always affordable
            count_stddev=max(expected / 20, 0.51 * self.noise_multiplier),
            target_quantile=self.config.target_quantile,
        )

    def _calibrate(self) -> float:
        """The noise multiplier: the one given, or the least that meets the budget in the planned rounds."""
        c = self.config
        if c.noise_multiplier is not None:
            return c.noise_multiplier
        if c.noise == "local":
            while not self._allows_plan(1.0):
                self._local_epsilon *= 0.999  # room for the distance of integer noise
            mechanism = self._mechanism(1.0)
            assert isinstance(mechanism, LocalNoise)  # noqa: S101 - by construction
            return mechanism.noise_multiplier

        def cost(noise_multiplier: float) -> Event:
            return SelfComposed(self._event(self._mechanism(noise_multiplier)), self._rounds)

        multiplier = calibrate_event(
            cost, epsilon=c.epsilon, delta=KEPT * c.delta, neighboring=self._relation, precision=1e-4
        )
        # The filter that guards adaptive releases is a little looser than composition known beforehand: make room.
        while not self._allows_plan(multiplier):
            multiplier *= 1.002
        return multiplier

    def _allows_plan(self, noise_multiplier: float) -> bool:
        mechanism = self._mechanism(noise_multiplier)
        try:
            budget = self._budget(mechanism)
        except ConfigurationError:  # not even one round fits
            return False
        return budget.limit >= self._rounds * budget.cost(self._event(mechanism))[0]

    def _event(self, mechanism: Mechanism, survivors: int | None = None) -> Event:
        if isinstance(mechanism, LocalNoise):
            return mechanism.event()  # the message itself is seen: sampling amplifies nothing
        if isinstance(mechanism, CentralNoise):
            return mechanism.event(self.sampling_probability)
        return mechanism.event(survivors, self.sampling_probability)

    def _budget(self, mechanism: Mechanism) -> Budget:
        c, planned = self.config, self._event(mechanism)
        fixed = self.sampling_probability < 1.0 and not c.adaptive
        if c.noise == "local" or fixed:
            # every round costs the same, or is rarely cheaper: count rounds, with the tight accountant
            return Budget(c.epsilon, c.delta, self._relation, FilterKind.PLAN, planned)
        # charges what each round really cost, and stays proven when the clip norm is chosen as the run goes
        return Budget.renyi_for(planned, epsilon=c.epsilon, delta=c.delta, neighboring=self._relation)

    # ---- a run ----------------------------------------------------------------------------------------------

    def restore(self, records: Sequence[RoundPrivacy | None]) -> None:
        """Take up the clip norm where a resumed run left it."""
        norms = [record.clip_norm for record in records if record is not None]
        if self.adaptive is not None and norms:
            self._set_clip(replace(self.adaptive, clip_norm=norms[-1]))

    def _set_clip(self, adaptive: AdaptiveClip) -> None:
        self.adaptive = adaptive
        self.mechanism = self._mechanism(self.noise_multiplier, adaptive)

    def coder(self, layout: Layout) -> NoisyCoder:
        """This round's coder."""
        return NoisyCoder(layout, self.mechanism, self._value_bits, self.adaptive)

    def before(self, round: int) -> None:
        """Raises :class:`PrivacyBudgetExceededError` or :class:`LostRoundError`."""
        self._admit(round, self._event(self.mechanism))

    def charge(self, round: int, coder: Coder, result: SumResult) -> None:
        """Commit the charge for the realised survivors. Raises PrivacyBudgetExceededError: nothing may be decoded."""
        self.ledger.charge(round, self._event(self.mechanism, len(result.survivors)))

    def released(self, round: int, coder: Coder, digest: bytes) -> RoundPrivacy:
        """Note the release; with an adaptive clip norm, take its next step."""
        if isinstance(coder, NoisyCoder) and coder.next_clip is not None:
            self._set_clip(coder.next_clip)
        self.ledger.released(round, digest)
        return RoundPrivacy(self.epsilon_spent, self.clip_norm)

    @property
    def clip_norm(self) -> float:
        """The clip norm of the next round."""
        return self.config.clip_norm if self.adaptive is None else self.adaptive.clip_norm

    def planned_epsilon(self, rounds: int) -> float:
        """ε of ``rounds`` rounds with no more than the least number of survivors."""
        return self._planned(self._event(self.mechanism), rounds)

    def assumptions(self) -> list[str]:
        """What the stated ε rests on, in words."""
        c = self.config
        relation = {
            NeighboringRelation.ADD_REMOVE: "one client's whole contribution present or absent",
            NeighboringRelation.REPLACE_ONE: "one client's whole contribution replaced by any other",
        }[self.neighboring]
        lines = [f"neighboring populations differ in {relation}; privacy unit: client"]
        if c.noise == "distributed":
            lines.append(
                f"at least {self.minimum_survivors - c.colluders} of the survivors add their share of the noise "
                f"honestly ({c.colluders} may collude with the server); a round is charged for its realised survivors"
            )
            lines.append("the server sees only the protected sum: without protection it would see each client's share")
        elif c.noise == "central":
            lines.append("the server is trusted: it sees the exact sum and adds the noise")
        else:
            lines.append("each client's message is private by itself, whoever sees it")
        if self.sampling_probability < 1 and c.noise != "local":
            charged = sum(row.kind == "charge" for row in self.ledger.rows())
            unsampled = event_epsilon(
                SelfComposed(self.mechanism.event(), max(1, charged)), self.config.delta, self.neighboring
            )
            lines.append(
                f"each client joins a round by its own coin (probability {self.sampling_probability:g}), and who "
                "joined is hidden from whoever receives the models; against one who sees the cohorts, as the server "
                f"does, the same rounds cost epsilon = {unsampled:.2f}"
            )
        lines.append("noise comes from the operating system's generator; rounding is inside the sensitivity")
        return lines
