"""What the server's side saw of one call of ``send_and_receive``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RoundReport"]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One sum of one call of ``send_and_receive``.

    ``survivors``: node ids in the sums. ``dropped``: node id → why. ``failed``: why there is no mean, or ``None``.
    ``total_weight``: of the survivors. ``exchanges``: request and reply with the clients. ``upload_bytes``: frames per
    node. ``reply_bytes``, ``request_bytes``: whole message contents, all nodes together.
    ``seconds``: wall clock. ``metrics``: the weighted means.
    """

    kind: str
    clients: int
    survivors: tuple[int, ...]
    dropped: Mapping[int, str]
    failed: str | None
    total_weight: int
    exchanges: int
    upload_bytes: Mapping[int, int] = field(repr=False)
    request_bytes: int
    reply_bytes: int
    seconds: float
    metrics: Mapping[str, float]

    def __str__(self) -> str:
        head = f"securefl {self.kind}: {len(self.survivors)} of {self.clients} clients in the sum"
        if self.failed:
            head = f"securefl {self.kind}: no sum: {self.failed}"
        mean = sum(self.upload_bytes.values()) / max(1, len(self.upload_bytes))
        return f"{head}, {self.exchanges} exchanges, {mean:,.0f} B up per client, {self.seconds:.1f} s"
