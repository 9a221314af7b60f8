"""`import securefl` costs what the base dependencies cost: nothing optional or heavy is loaded."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "tenseal", "matplotlib", "jinja2", "pydantic", "typer", "rich", "flwr", "nvflare")


def modules_after(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh, isolated interpreter that ran ``statement``."""
    program = (
        f"import json, sys; {statement}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(ran.stdout))


def test_import_loads_nothing_optional() -> None:
    loaded = modules_after("import securefl")
    assert "securefl" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ["jinja2", "rich"])
def test_the_probe_sees_what_is_loaded(name: str) -> None:
    assert name in modules_after(f"import {name}")
