"""securefl inside Flower (Message API): ``SecureMod`` in a ClientApp, ``SecureGrid`` around the ServerApp's grid.

    app = ClientApp(mods=[SecureMod()])
    FedAvg(...).start(grid=SecureGrid(grid, clip_range=0.5, max_weight=2048), initial_arrays=..., num_rounds=3)

Needs ``pip install 'securefl[flower]'``. How to use it, and what it refuses: docs/flower.md.
"""

try:
    import flwr.serverapp  # noqa: F401 - asked for first, so that its absence is one sentence
except ImportError as error:
    from securefl.errors import MissingExtraError

    raise MissingExtraError("this needs Flower 1.42: pip install 'securefl[flower]'") from error

from securefl.integrations.flower.grid import SecureGrid
from securefl.integrations.flower.mod import SecureMod
from securefl.integrations.flower.report import RoundReport
from securefl.integrations.policy import Policy

__all__ = ["Policy", "RoundReport", "SecureGrid", "SecureMod"]
