"""What a run writes down of a round."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from securefl.fl.interfaces import Aggregate, RoundRecord
from securefl.fl.scoring import Evaluation
from securefl.types import ClientId

__all__ = ["record_of"]


def record_of(
    round: int, evaluation: Evaluation, clients: int, aggregate: Aggregate | None, failed: str | None
) -> RoundRecord:
    """The record of a round of ``clients`` invited ones that gave ``aggregate``, or ``failed`` and gave none.

    ``evaluation``: of the model after it. What the loop knows beside (time, bytes of the model, metrics) it fills in.
    """
    if aggregate is None:
        return RoundRecord(
            round=round,
            accuracy=evaluation.accuracy,
            test_loss=evaluation.loss,
            clients=clients,
            survivors=(),
            failed=failed,
            upload_bytes_per_client=None,
            vector_bytes_per_client=None,
            download_bytes_per_client=None,
            clipped_fraction=None,
            seconds=0.0,
            balanced_accuracy=evaluation.balanced_accuracy,
        )
    return RoundRecord(
        round=round,
        accuracy=evaluation.accuracy,
        test_loss=evaluation.loss,
        clients=clients,
        survivors=tuple(ClientId(int(client)) for client in aggregate.survivors),
        failed=None,
        upload_bytes_per_client=_mean(aggregate.upload_bytes),
        vector_bytes_per_client=_mean(aggregate.vector_bytes),
        download_bytes_per_client=_mean(aggregate.download_bytes),
        clipped_fraction=float(aggregate.clipped_fraction),
        seconds=0.0,
        aggregate_error=aggregate.relative_error,
        privacy=aggregate.privacy,
        balanced_accuracy=evaluation.balanced_accuracy,
    )


def _mean(values: Mapping[ClientId, int]) -> float | None:
    return fmean(values.values()) if values else None
