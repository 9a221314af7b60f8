"""What learning gains and costs, one table per part; the parts are the modules named below.

    securefl bench learning [--quick] [--json PATH]

Each part has ``measure(quick) -> dict`` (JSON-ready) and ``show(figures)``. Accuracy is a property of the data and the
seeds, not of the machine; times carry over as ratios only.
"""

from __future__ import annotations

import argparse
import platform

import _learning_personal
import _learning_servers
from threadpoolctl import threadpool_limits

from securefl.cli.output import write_json

#: Name in the JSON → module.
PARTS = {"personalization": _learning_personal, "servers": _learning_servers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and rounds: a check, not a figure")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    figures = {}
    with threadpool_limits(1):
        for name, part in PARTS.items():
            figures[name] = part.measure(options.quick)
            if options.json != "-":
                part.show(figures[name])
    write_json({**figures, "machine": platform.processor() or platform.machine()}, options.json)


if __name__ == "__main__":
    main()
