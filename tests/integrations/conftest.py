"""What the tests of one engine share lies beside them: ``flower_loopback``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
