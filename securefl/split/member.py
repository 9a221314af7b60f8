"""One client of a run in one process. [torch]"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from securefl.split.channel import MemoryChannel
from securefl.split.handover import Mailbox
from securefl.split.learner import Learner
from securefl.split.middle import Middle

__all__ = ["Member"]


@dataclass
class Member:
    """A client: its data, its copies of front and head, its link."""

    inputs: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    middle: Middle
    learner: Learner
    ends: nn.ModuleList
    channel: MemoryChannel | None
    mailbox: Mailbox
    other_bytes: int = 0
