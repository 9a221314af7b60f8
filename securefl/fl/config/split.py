"""Split learning instead of averaging whole models: ``[split]``."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from securefl.fl.config.section import Section

__all__ = ["SplitConfig"]

#: Keys that belong to some protections: setting one under another would have no effect.
_KEYS_OF: Final = {
    "bits": ("quantized",),
    "activation_range": ("quantized", "ckks", "shared"),
    "gradient_range": ("shared",),
    "parties": ("shared",),
    "cluster": ("shared",),
    "audit": ("shared",),
    "reveal": ("shared",),
    "ciphertexts": ("ckks",),
    "weight_gradient": ("ckks",),
    "clip_norm": ("noise",),
    "gradient_clip_norm": ("noise", "ckks"),
    "epsilon": ("noise", "ckks"),
    "delta": ("noise", "ckks"),
}


class SplitConfig(Section):
    """``[split]``: the client holds the ends of the model, the server its middle; absent: whole models are averaged.

    ``protect``: how activations and gradients travel. ``after``: the layer that the cut follows; ``until``: the last
    layer of the server's part; absent: the server holds the last linear layer. ``labels``: who has them; ``server``
    only under ``plain``. ``series``: train on the synthetic heartbeat-like series instead of [data] dataset and
    [model].
    ``weight_gradient``: how that of an encrypted layer leaves the clients; absent: summed for parallel clients, noised
    for sequential ones. ``epsilon``, ``delta``: per example, where something noised is released. ``parties``: how the
    computing parties of ``shared`` run on this machine; ``cluster``: the file that says where they run instead.
    ``audit``: the share of batches in which their helper is checked. ``reveal``: open the trained body at the end.
    ``leakage``: measure at the end what the server's view gives away.
    """

    protect: Literal["plain", "quantized", "noise", "ckks", "shared"] = "ckks"
    order: Literal["parallel", "sequential"] = "parallel"
    after: str | None = None
    until: str | None = None
    labels: Literal["client", "server"] = "client"
    series: bool = False
    momentum: float = Field(default=0.9, ge=0, lt=1)
    activation_range: float | None = Field(default=None, gt=0)
    gradient_range: float = Field(default=16.0, gt=0)
    bits: int = Field(default=8, ge=2, le=16)
    ciphertexts: Literal["wide", "compact"] = "wide"
    weight_gradient: Literal["summed", "noised"] | None = None
    clip_norm: float = Field(default=4.0, gt=0, le=1e9)
    gradient_clip_norm: float = Field(default=1.0, gt=0, le=1e9)
    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    parties: Literal["threads", "processes"] = "threads"
    cluster: str | None = None
    audit: float = Field(default=0.0, ge=0, le=1)
    reveal: bool = False
    leakage: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key, owners in _KEYS_OF.items():
            if key in self.model_fields_set and self.protect not in owners:
                raise ValueError(f"{key} has no effect with protect = {self.protect!r}; remove it")
        if self.labels == "server" and self.protect != "plain":
            raise ValueError(f'labels = "server" gives the labels away: it does not go with protect = {self.protect!r}')
        if self.labels == "server" and self.until is not None:
            raise ValueError('with labels = "server" the server has the end of the model: remove until')
        if self.cluster is not None and {"parties", "audit"} & self.model_fields_set:
            raise ValueError("parties and audit are about parties that this run starts: remove them beside cluster")
        if self.weight_gradient == "summed" and self.order == "sequential":
            raise ValueError('sequential clients have nobody to sum a step with: use weight_gradient = "noised"')
        return self
