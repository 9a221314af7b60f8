"""What the tests of one engine share lies beside them: ``flower_loopback``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def server_app() -> None:
    """A test in the place of a ServerApp."""
    import flower_loopback  # needs flwr, which not every engine's environment has

    flower_loopback.enter_run()
