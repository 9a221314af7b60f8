"""``python -m securefl`` and the ``securefl`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from securefl.errors import SecureFLError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: exit 0 on success, 1 on a named error printed as one line, 2 on bad usage.

    ``arguments``: those of the process by default. Leaves by :class:`SystemExit`.
    """
    try:
        try:
            from securefl.cli import app
        except ImportError as error:
            sys.exit(f"error: MissingExtraError: the command line needs {error.name}: pip install 'securefl[cli]'")
        app(arguments)
    except SecureFLError as error:
        text = " ".join(str(error).split())
        sys.exit(f"error: {type(error).__name__}: {text}")
    except BrokenPipeError:  # the reader of our output has gone: that is its right
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
