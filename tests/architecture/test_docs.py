"""The documents are true: their code runs, their links lead somewhere, their tables are those of the code."""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from typer.testing import CliRunner

import securefl
from securefl.cli import app
from securefl.encoding.quantize import MAX_VALUE_BITS, FixedPoint
from securefl.encoding.ring import Lanes
from securefl.errors import ConfigurationError, MissingExtraError
from securefl.fl import config
from securefl.fl.runner import Run
from securefl.primitives.identity import SIGNATURE_BYTES
from securefl.secagg import Params
from securefl.secagg.signed.messages import Signatures
from securefl.types import PartyId
from securefl.wire import OVERHEAD_BYTES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# ---- code ---------------------------------------------------------------------------------------------------------

CODE = [(name(path), at, code) for path in DOCUMENTS for at, code in enumerate(blocks(path.read_text(), "python"))]


@pytest.mark.parametrize(("document", "at", "code"), CODE, ids=[f"{document}-{at}" for document, at, _ in CODE])
def test_python_blocks_run(document: str, at: int, code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_readme_has_the_snippets() -> None:
    first, second = blocks(README, "python")
    assert "securefl.secure_sum(" in first
    assert "close_round()" in second


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_toml_blocks_are_configurations(path: Path) -> None:
    for block in blocks(path.read_text(), "toml"):
        config.parse(tomllib.loads(block))


# ---- links --------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(path.read_text()), re.MULTILINE)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        target, _, fragment = link.partition("#")
        assert "://" not in target, f"{link}: name the thing instead"
        to = (path.parent / target).resolve() if target else path
        assert to.exists(), f"{name(path)} links to {link}"
        if fragment:
            assert fragment in anchors(to), f"{name(path)} links to {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_paths_in_the_text_exist(path: Path) -> None:
    """Code spans that look like a path of this repository or of the package."""
    spans = re.findall(
        r"`([\w./-]+\.(?:py|md|toml|txt|svg)|(?:docs|protocols|examples|tests|benchmarks)/[\w/]*)`", path.read_text()
    )
    homes = (ROOT, ROOT / "securefl", path.parent)
    for span in spans:
        if span in ("config.json", "CONFIG.toml") or span.endswith("/SPEC.md"):
            continue
        assert any((home / span).exists() for home in homes), f"{name(path)} names {span}"


def test_every_document_is_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        links = re.findall(r"\]\(([^)#\s]+)", prose(path.read_text()))
        todo += [(path.parent / link).resolve() for link in links]
    assert set(DOCUMENTS) <= seen


def test_the_picture_is_small_and_opens() -> None:
    picture = ROOT / "docs" / "figures" / "server_view.svg"
    assert picture.stat().st_size < 150_000
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


# ---- configuration ------------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
#: What a validator says and no type does.
IN_WORDS = {
    ("split", "cluster"): "a file",
    ("protection", "threshold"): "fraction in (0, 1], or integer ≥ 2",
    ("model", "hidden"): "list of integers, each ≥ 1",
    ("compression", "chain"): "list of coders",
    ("tiers", "sizes"): "list of numbers, each > 0",
    ("tiers", "shares"): "list of numbers, each > 0",
    ("compression", "error_feedback"): "`true`, `false`",
    ("compression", "download_bits"): "4, 8, 32",
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Section → key → (default, what it takes), as the tables say."""
    parts = re.split(r"^## `\[(\w+)\]`$", CONFIGURATION, flags=re.MULTILINE)[1:]
    sections = zip(parts[::2], parts[1::2], strict=True)
    return {section: {key: (value, takes) for key, value, takes, _ in ROW.findall(text)} for section, text in sections}


def number(value: float) -> str:
    return "2^32" if value == 2**32 else f"{value:g}"


def takes(section: str, key: str, field: Any) -> str:
    """What a key takes, from the model's own types and bounds."""
    if (section, key) in IN_WORDS:
        return IN_WORDS[section, key]
    kind, metadata = field.annotation, list(field.metadata)
    if get_origin(kind) in (Union, types.UnionType):  # an optional value: look at what it is when it is there
        kind = next(each for each in get_args(kind) if each is not type(None))
        kind, *inner = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
        metadata += [part for each in inner for part in getattr(each, "metadata", [each])]
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return "a layer's name"
    bounds = [
        (sign, min(getattr(part, attribute), MAX_VALUE_BITS) if key == "value_bits" else getattr(part, attribute))
        for attribute, sign in SIGNS.items()
        for part in metadata
        if getattr(part, attribute, None) is not None
    ]
    if kind is bool:
        return "`true`, `false`"
    return ", ".join(["integer" if kind is int else "float", *(f"{sign} {number(value)}" for sign, value in bounds)])


def test_configuration_tables_are_those_of_the_models() -> None:
    every = config.Config.model_construct(
        privacy=config.PrivacyConfig(),
        personalization=config.PersonalizationConfig(),
        augmentation=config.AugmentationConfig(flip=True),
        tiers=config.TiersConfig(),
        robust=config.RobustConfig(norm_bound=1),
        split=config.SplitConfig(),
    )
    models = {section: type(getattr(every, section)) for section in config.Config.model_fields}
    assert list(documented()) == list(models)
    for section, model in models.items():
        table = documented()[section]
        assert list(table) == list(model.model_fields), f"[{section}]"
        for key, field in model.model_fields.items():
            default, described = table[key]
            assert described == takes(section, key, field), f"[{section}] {key}"
            stated = None if default == "none" else tomllib.loads(f"v = {default.strip('`')}")["v"]
            actual = list(field.default) if isinstance(field.default, tuple) else field.default
            assert (stated, type(stated)) == (actual, type(actual)), f"[{section}] {key}"


@pytest.mark.parametrize("bits", [1, MAX_VALUE_BITS + 1])
def test_value_bits_beyond_the_documented_range_are_refused(bits: int) -> None:
    def build() -> FixedPoint:
        chosen = config.parse({"protection": {"value_bits": bits}}).protection
        return FixedPoint(chosen.clip_range, chosen.value_bits)

    with pytest.raises(ConfigurationError, match="value_bits"):
        build()


def test_threshold_takes_what_is_documented() -> None:
    for good in (0.01, 1.0, 2, 20):
        config.parse({"protection": {"threshold": good}})
    for bad in (0, 0.0, 1, 1.5, -1):
        with pytest.raises(ConfigurationError, match="threshold"):
            config.parse({"protection": {"threshold": bad}})


def test_the_example_file_spells_out_the_bundled_run() -> None:
    path = ROOT / "examples" / "digits.toml"
    assert config.load(path) == config.Config()
    given = tomllib.loads(path.read_text())
    bundled = {name: getattr(config.Config(), name) for name in config.Config.model_fields}
    for section, model in ((name, type(values)) for name, values in bundled.items() if values is not None):
        unused = {
            key
            for key, owners in config.compression._KEYS_OF.items()
            if not set(owners) & set(config.Config().compression.chain)
        }
        unused |= {key for key in model.model_fields if key.startswith("allow_")} | {
            "decay",
            "straggler_work",
            "poison_factor",
        }
        unused |= {key for key, field in model.model_fields.items() if field.default is None}
        unused |= {
            key
            for home, keys in ((config.TrainingConfig(), "_KEYS_OF"), (config.DataConfig(), "_PARTITION_KEYS"))
            for key, (choice, values) in getattr(config.training, keys).items()
            if getattr(home, choice) not in values
        }
        assert set(given[section]) - unused == set(model.model_fields) - unused


# ---- figures ------------------------------------------------------------------------------------------------------


def test_bytes_of_the_bundled_run_are_those_of_the_readme(tmp_path: Path) -> None:
    run = Run(config.Config().with_overrides(rounds=1), tmp_path)
    (record,) = run.rounds()
    text = " ".join(README.split())
    assert f"with {run.parameters} parameters" in text
    assert f"{record.upload_bytes_per_client:,.0f} bytes of upload".replace(",", " ") in text
    assert f"the masked vector is {record.vector_bytes_per_client:,.0f}".replace(",", " ") in text


@pytest.mark.slow
def test_accuracy_of_the_bundled_run_is_that_of_the_readme(tmp_path: Path) -> None:
    run = Run(config.Config(), tmp_path)
    last = list(run.rounds())[-1]
    stated = re.search(r"test accuracy ([\d.]+) after 30\s+rounds", README)
    assert stated is not None
    assert last.accuracy == pytest.approx(float(stated[1]), abs=0.01)  # other versions of torch may round otherwise


@pytest.mark.parametrize(("clients", "dimension", "bits"), [(32, 1_000_000, 16), (100, 100_000, 14)])
def test_vector_bytes_of_the_benchmark_are_those_of_the_table(clients: int, dimension: int, bits: int) -> None:
    bytes_sent = 8 * Lanes(dimension, FixedPoint(1.0, bits).max_value, clients).words + OVERHEAD_BYTES
    row = f"| {clients} clients × {dimension:,} | {bytes_sent:,} | {bytes_sent / dimension:.3f} |"
    assert row in (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize(("clients", "dimension"), [(32, 1_000_000), (100, 100_000)])
def test_bytes_that_the_signed_form_adds_are_those_of_the_table(clients: int, dimension: int) -> None:
    """Frames with one signature, and lists: keys of n, boxes of n - 1, requests of the survivors."""

    def listed(count: int) -> int:
        signatures = {PartyId(at): bytes(SIGNATURE_BYTES) for at in range(1, count + 1)}
        return len(Signatures(signatures).encode()) + OVERHEAD_BYTES

    survivors = clients - clients // 10
    up = 2 * (SIGNATURE_BYTES + OVERHEAD_BYTES) + listed(clients - 1)
    down = listed(clients) + listed(clients - 1) + listed(survivors)
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert f"| {clients} clients × {dimension:,} | {up:,} | {down:,} |" in text
    assert (up, down) == (280 + 68 * clients, 160 + 68 * (2 * clients + survivors))


def test_the_benchmark_of_the_signed_form_measures_those_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    compare = importlib.import_module("_secagg_signed").compare
    n, dropped = 7, 2
    figures = compare("a check", Params(tuple(PartyId(i) for i in range(1, n + 1)), 3, 15), dropped, repeats=1)
    added = [figures[way]["signed"] - figures[way]["plain"] for way in ("upload_bytes", "download_bytes")]
    assert added == [280 + 68 * n, 160 + 68 * (2 * n + n - dropped)]
    assert set(figures["signed_over_plain"]) == set(figures["milliseconds"])
    assert all(step["signed"] > 0 < step["plain"] for step in figures["milliseconds"].values())


# ---- command line -------------------------------------------------------------------------------------------------


def commands(text: str) -> set[tuple[str, ...]]:
    """What follows ``securefl`` in shell blocks and code spans, up to a comment."""
    lines = [line.partition("#")[0] for block in blocks(text, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(securefl [^`]+)`", prose(text))
    words = [shlex.split(line) for line in lines]
    return {tuple(each[1:]) for each in words if each[:1] == ["securefl"] and len(each) > 1}


COMMANDS = sorted({command for path in DOCUMENTS for command in commands(path.read_text())})


def help_of(command: tuple[str, ...]) -> tuple[list[str], str]:
    """The command words of an invocation, and their help."""
    steps = [step for step in command[:2] if re.fullmatch(r"[a-z]+", step)]
    if steps[0] not in ("demo", "split"):
        steps = steps[:1]
    ran = CliRunner().invoke(app, [*steps, "--help"])
    assert ran.exit_code == 0, f"securefl {' '.join(steps)}: {ran.output}"
    return steps, ran.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_exist_with_help(command: tuple[str, ...]) -> None:
    _, text = help_of(command)
    for flag in (word for word in command if word.startswith("--")):
        assert re.search(rf"{flag}\b", text), f"securefl {' '.join(command)}"


def test_readme_names_the_commands() -> None:
    assert {command[0] for command in commands(README)} >= {"run", "demo", "selftest", "bench"}
    assert ("demo", "secagg", "--clients", "8", "--drop", "2") in commands(README)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_dev_tasks_exist(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    assert set(re.findall(r"python3 dev\.py (\w+)", path.read_text())) <= set(dev.TASKS)


# ---- words --------------------------------------------------------------------------------------------------------

FORBIDDEN = (
    "military-grade|bank-grade|guarantee[ds]?|unbreakable|unhackable|bulletproof|fully secure|100 ?% secure|"
    "zero-knowledge|anonymous|state-of-the-art|cutting-edge|blazing|seamless(ly)?|world-class|revolutionary"
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_no_promises_that_nobody_can_keep(path: Path) -> None:
    text = re.sub(r"^### Names to avoid$.*?(?=^#|\Z)", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.search(rf"\b({FORBIDDEN})\b", text, re.IGNORECASE)
    assert found is None, f"{name(path)}: {found and found[0]}"


#: Terms of the field, or the package's own name, that begin like a prefix to avoid.
ALLOWED = {"SecureFLError", "PrivateKey", "SecureGrid", "SecureMod"}


def public_names() -> list[tuple[str, str, Any]]:
    """(module, name, object) of everything that a module of the package exports."""
    found = []
    for module_info in pkgutil.walk_packages(securefl.__path__, "securefl."):
        if module_info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(module_info.name)
        except MissingExtraError:  # engines are in environments of their own
            assert module_info.name.startswith("securefl.integrations.")
            continue
        found += [(module.__name__, each, getattr(module, each)) for each in getattr(module, "__all__", ())]
    return found


def test_public_classes_avoid_the_prefixes() -> None:
    classes = {each for _, each, thing in public_names() if inspect.isclass(thing)}
    assert "FixedPoint" in classes  # the walk sees the package
    assert {each for each in classes if re.match("Secure|Safe|Private", each)} <= ALLOWED


def test_public_names_avoid_the_words() -> None:
    words = re.compile(
        r"worker|(?<!ep)silo|(?<![a-z])node(?![a-z])|encrypt_?mask|noise_?mask|mask_?noise", re.IGNORECASE
    )
    assert [(module, each) for module, each, _ in public_names() if words.search(each)] == []


def test_modules_avoid_the_names() -> None:
    modules = {each.name.rpartition(".")[2] for each in pkgutil.walk_packages(securefl.__path__, "securefl.")}
    assert not modules & {"utils", "util", "helpers", "common", "manager", "misc"}
