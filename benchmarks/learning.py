"""What learning gains and costs, one table per part; the parts are the modules named below.

    securefl bench learning [--quick] [--json PATH]

Each part has ``measure(quick) -> dict`` (JSON-ready) and ``show(figures)``. Accuracy is a property of the data and the
seeds, not of the machine; times carry over as ratios only.
"""

from __future__ import annotations

import _learning_personal
import _learning_servers
from _harness import command_line, write_figures
from threadpoolctl import threadpool_limits

#: Name in the JSON → module.
PARTS = {"personalization": _learning_personal, "servers": _learning_servers}


def main() -> None:
    options = command_line(__doc__)
    figures = {}
    with threadpool_limits(1):
        for name, part in PARTS.items():
            figures[name] = part.measure(options.quick)
            if options.json != "-":
                part.show(figures[name])
    write_figures(figures, options.json)


if __name__ == "__main__":
    main()
