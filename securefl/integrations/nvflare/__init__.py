"""securefl inside NVFLARE: ``MaskedFedAvg`` on the server, ``ProtocolExecutor`` and ``MaskFilter`` on each client.

    job.to(MaskedFedAvg(num_rounds=3, clip_range=0.5, max_weight=512, model=…), "server")
    job.to_clients(ProtocolExecutor(), tasks=["securefl"])
    job.to_clients(MaskFilter(), filter_type=FilterType.TASK_RESULT, tasks=["train"])
    job.to_clients(ModelFilter(), filter_type=FilterType.TASK_DATA, tasks=["train"])

Needs ``pip install 'securefl[nvflare]'``. How to use it: docs/nvflare.md.
"""

try:
    import nvflare  # noqa: F401 - asked for first, so that its absence is one sentence
except ImportError as error:
    from securefl.errors import MissingExtraError

    raise MissingExtraError("this needs NVFLARE 2.9: pip install 'securefl[nvflare]'") from error

from securefl.integrations.nvflare.controller import MaskedFedAvg
from securefl.integrations.nvflare.executor import ProtocolExecutor
from securefl.integrations.nvflare.filters import MaskFilter, ModelFilter

__all__ = ["MaskFilter", "MaskedFedAvg", "ModelFilter", "ProtocolExecutor"]
