"""One task to each of some sites, and their answers until none is missing or time is up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.model_controller import ModelController

from securefl.errors import DecodeError
from securefl.integrations.nvflare.carriage import TASK, frames_in
from securefl.wire import Buffer

__all__ = ["Assignment", "Tasks"]


@dataclass(frozen=True)
class Assignment:
    """``site`` gets ``frames`` in the protocol's task, or ``model`` in the training task; ``meta`` in either."""

    site: str
    frames: tuple[Buffer, ...] = ()
    meta: dict[str, Any] | None = None
    model: dict[str, Any] | None = None


class Tasks:
    """Sends assignments through ``controller`` and takes what comes back.

    ``answered(site, frames)``, ``failed(site, why)``: what is called with each answer, from NVFLARE's threads, one at a
    time; whatever comes after :meth:`run` has returned is dropped.
    """

    def __init__(
        self,
        controller: ModelController,
        train_task: str,
        answered: Callable[[str, list[Buffer]], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self._controller, self._train_task = controller, train_task
        self._answered, self._failed = answered, failed
        self._changed = threading.Condition()
        self._open = 0

    def run(
        self, assignments: Iterable[Assignment], seconds: float, missing: Callable[[], bool], rounds: tuple[int, int]
    ) -> None:
        """Send, and return when nobody is ``missing`` or ``seconds`` have passed. ``rounds``: this one, and of how
        many.
        """
        controller, deadline = self._controller, time.monotonic() + seconds
        with self._changed:
            self._open += 1
            serial = self._open
        for one in assignments:
            data: dict[str, Any] = {str(at): np.frombuffer(f, dtype=np.uint8) for at, f in enumerate(one.frames)}
            model = FLModel(
                params_type=ParamsType.DIFF if one.model is None else ParamsType.FULL,
                params=one.model or data or {"0": np.empty(0, dtype=np.uint8)},
                current_round=rounds[0],
                total_rounds=rounds[1],
                meta=dict(one.meta or {}),
            )
            controller.send_model(
                task_name=TASK if one.model is None else self._train_task,
                data=model,
                targets=[one.site],
                timeout=int(seconds) or 1,
                callback=self._taker(one.site, serial),
            )
        with self._changed:
            while missing() and not controller.abort_signal.triggered:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.5))  # an abort signal wakes nobody
            self._open += 1
        controller.cancel_all_tasks()

    def refused(self, site: str, why: str) -> None:
        """This site answered with an error."""
        with self._changed:
            self._failed(site, why)
            self._changed.notify_all()

    def _taker(self, site: str, serial: int) -> Callable[[FLModel], bool]:
        def take(answer: FLModel) -> bool:
            with self._changed:
                if self._open != serial:
                    return False  # too late: the exchange was closed without this site
                try:
                    self._answered(site, frames_in(answer.params))
                except DecodeError as error:
                    self._failed(site, f"DecodeError: {error}")
                self._changed.notify_all()
                return True

        return take
