"""dev.py: what it decides, without installing anything."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATE = {"place": "3.11 /here", "digest": "d1"}


def stamp_of(*extras: str, **changes: str) -> dict[str, Any]:
    return {**STATE, "extras": sorted(extras), "peer": False, **changes}


class Pip:
    """Stands for ``pip_install``: remembers what it was asked, answers ``statuses`` in turn, then is interrupted."""

    def __init__(self, stamp: str, *statuses: int) -> None:
        self.stamp, self.statuses = Path(stamp), list(statuses)
        self.asked: list[list[str]] = []

    def __call__(self, arguments: list[str]) -> int:
        assert not self.stamp.exists(), "an interrupted installation would pass for a finished one"
        self.asked.append(arguments)
        if not self.statuses:
            raise KeyboardInterrupt
        return self.statuses.pop(0)


@pytest.fixture
def dev(tmp_path: Path) -> ModuleType:
    """dev.py in a checkout of its own under ``tmp_path``."""
    for name in ("dev.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    spec = importlib.util.spec_from_file_location("dev", tmp_path / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry per .venv made; what is made is a ``python`` that says what it was given."""
    made: list[str] = []

    def make_venv() -> None:
        made.append("venv")
        python = Path(dev.PYTHON)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text('#!/bin/sh\nfor word; do echo "$word"; done\nexit 42\n')
        python.chmod(0o755)

    monkeypatch.setattr(dev, "make_venv", make_venv)
    return made


@pytest.fixture
def become(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that dev.py would have become, called from tests/ of this checkout; nothing is installed."""
    commands: list[list[str]] = []
    monkeypatch.chdir(ROOT / "tests")
    monkeypatch.setattr(dev, "install", lambda extras: None)
    monkeypatch.setattr(dev.os, "execv", lambda path, argv: commands.append(argv))
    return commands


# ------------------------------------------------------------------------------------------------------- Pythons


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6), (3, 10, 13)])
def test_an_old_python_gets_one_sentence(dev: ModuleType, version: tuple[int, ...]) -> None:
    sentence = dev.too_old(version)
    assert sentence == f"securefl needs Python 3.11 or newer, and this is {version[0]}.{version[1]}."


@pytest.mark.parametrize("version", [(3, 11), (3, 11, 0, "final", 0), (3, 14), (4, 0)])
def test_a_new_enough_python_passes(dev: ModuleType, version: tuple[Any, ...]) -> None:
    assert dev.too_old(version) is None


def test_main_refuses_an_old_python(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        dev.main(["test"])


def test_the_file_parses_on_old_pythons() -> None:
    source = (ROOT / "dev.py").read_text(encoding="ascii")
    nodes = list(ast.walk(ast.parse(source, feature_version=(3, 4))))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef, ast.Match)
    assert [node.lineno for node in nodes if isinstance(node, newer)] == []
    starred = [
        node.lineno
        for node in nodes
        if isinstance(node, ast.List)
        for item in node.elts
        if isinstance(item, ast.Starred)
    ]
    assert starred == []
    assert [node.lineno for node in nodes if isinstance(node, ast.Raise) and node.cause] == []
    assert [node.arg for node in nodes if isinstance(node, ast.arg) and node.annotation is not None] == []
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.returns or node.args.kwonlyargs or node.args.posonlyargs] == []


def test_missing_ensurepip_names_the_package(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def call(command: list[str], **_: Any) -> int:
        started.append(command[1:])
        return 1

    monkeypatch.setattr(dev.subprocess, "call", call)
    with pytest.raises(SystemExit, match="sudo apt install python3-venv"):
        dev.make_venv()
    assert started == [["-c", "import ensurepip, venv"]]  # asked, and nothing made


# ----------------------------------------------------------------------------------------------- what to install


@pytest.mark.parametrize(
    ("stamp", "wanted", "expected"),
    [
        pytest.param({}, {"all"}, (True, {"all"}), id="never finished"),
        pytest.param(stamp_of("all"), {"all"}, (False, set()), id="all there"),
        pytest.param(stamp_of("all", "test"), {"all"}, (False, set()), id="a superset satisfies"),
        pytest.param(stamp_of("all"), {"all", "test"}, (False, {"all", "test"}), id="one extra more"),
        pytest.param(stamp_of("report"), {"test"}, (False, {"report", "test"}), id="what is there is kept"),
        pytest.param(stamp_of("all", "test", digest="d0"), {"all"}, (False, {"all"}), id="pins changed"),
        pytest.param(stamp_of("all", place="3.12 /here"), {"all"}, (True, {"all"}), id="another Python"),
        pytest.param(stamp_of("all", place="3.11 /there"), {"all"}, (True, {"all"}), id="copied elsewhere"),
    ],
)
def test_plan(dev: ModuleType, stamp: dict[str, Any], wanted: set[str], expected: tuple[bool, set[str]]) -> None:
    assert dev.plan(stamp, STATE, wanted) == expected


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_the_digest_covers_both_files(dev: ModuleType, tmp_path: Path, changed: str) -> None:
    before = dev.wanted_state()
    assert dev.wanted_state() == before
    with (tmp_path / changed).open("a") as file:
        file.write("# changed\n")
    assert dev.wanted_state()["digest"] != before["digest"]


@pytest.mark.parametrize("content", [None, "", "{", '{"place": "3.11'])
def test_an_absent_or_torn_stamp_counts_as_none(dev: ModuleType, made: list[str], content: str | None) -> None:
    dev.make_venv()
    if content is not None:
        Path(dev.STAMP).write_text(content)
    assert dev.read_stamp() == {}
    dev.write_stamp(stamp_of("all"))
    assert dev.read_stamp() == stamp_of("all")


def test_install_once_then_quiet(
    dev: ModuleType, made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip = Pip(dev.STAMP, 0)
    monkeypatch.setattr(dev, "pip_install", pip)
    dev.install({"all", "test"})
    capsys.readouterr()
    dev.install({"all"})
    assert capsys.readouterr() == ("", "")
    assert pip.asked == [["-e", ".[all,test]"]]
    assert made == ["venv"]


def test_another_extra_goes_into_the_same_venv(
    dev: ModuleType, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(dev.STAMP, 0, 0)
    monkeypatch.setattr(dev, "pip_install", pip)
    dev.install({"all"})
    dev.install({"test"})
    assert pip.asked == [["-e", ".[all]"], ["-e", ".[all,test]"]]
    assert made == ["venv"]


def test_after_a_failure_venv_is_made_anew(dev: ModuleType, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "pip_install", Pip(dev.STAMP, 1, 0))
    with pytest.raises(SystemExit, match="pip could not install"):
        dev.install({"all"})
    dev.install({"all"})
    assert made == ["venv", "venv"]


def test_after_an_interruption_venv_is_made_anew(
    dev: ModuleType, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(dev.STAMP, 0)
    monkeypatch.setattr(dev, "pip_install", pip)
    dev.install({"all"})
    with pytest.raises(KeyboardInterrupt):
        dev.install({"all", "test"})
    pip.statuses.append(0)
    dev.install({"all"})
    assert made == ["venv", "venv"]


def test_a_venv_whose_python_is_gone_is_made_anew(
    dev: ModuleType, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "pip_install", lambda arguments: 0)
    dev.install({"all"})
    Path(dev.PYTHON).unlink()
    dev.install({"all"})
    assert made == ["venv", "venv"]


def test_pip_keeps_the_callers_settings_but_installs_here(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def call(command: list[str], *, cwd: str, env: dict[str, str]) -> int:
        seen.update(command=command, cwd=cwd, env=env)
        return 7

    monkeypatch.setattr(dev.subprocess, "call", call)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_USER", "1")
    assert dev.pip_install(["-e", ".[all]"]) == 7
    assert seen["command"][0] == dev.PYTHON
    assert seen["command"][-4:] == ["-c", "constraints.txt", "-e", ".[all]"]
    assert seen["cwd"] == dev.ROOT
    assert seen["env"]["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert "PIP_USER" not in seen["env"]


# --------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("argv", "expected", "here"),
    [
        (["run", "--rounds", "3"], ["-m", "securefl", "run", "--rounds", "3"], False),
        (["demo", "secagg", "--drop", "1"], ["-m", "securefl", "demo", "secagg", "--drop", "1"], False),
        (["test", "-k", "shamir or wire"], ["-m", "pytest", "-k", "shamir or wire"], True),
        (["test", "--help"], ["-m", "pytest", "--help"], True),
        (["vectors", "--check"], ["protocols/generate.py", "--check"], True),
        (["bench", "masking"], ["-m", "securefl", "bench", "masking"], False),
    ],
)
def test_arguments_pass_through(
    dev: ModuleType, become: list[list[str]], argv: list[str], expected: list[str], here: bool
) -> None:
    dev.main(argv)
    assert become == [[dev.PYTHON, *expected]]
    assert Path.cwd() == (Path(dev.ROOT) if here else ROOT / "tests")


def test_the_exit_status_is_the_tasks_own(dev: ModuleType, made: list[str]) -> None:
    dev.make_venv()
    dev.write_stamp({**dev.wanted_state(), "extras": ["all", "test"], "peer": False})
    command = [sys.executable, f"{dev.ROOT}/dev.py", "test", "-k", "a b"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (42, "-m\npytest\n-k\na b\n", "")


@pytest.mark.parametrize("argv", [[], ["fly"], ["check", "--fix"]])
def test_bad_usage(
    dev: ModuleType, become: list[list[str]], capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert dev.main(argv) == 2
    assert "dev.py vectors" in capsys.readouterr().err
    assert become == []


def test_help_names_every_task(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [task for task in dev.TASKS if f"dev.py {task} " not in shown] == []


@pytest.mark.parametrize("broken", [set(), {"mypy"}, {"ruff check", "import-linter"}])
def test_check_runs_all_and_names_what_failed(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: set[str]
) -> None:
    ran: list[list[str]] = []

    def call(command: list[str]) -> int:
        ran.append(command[1:])
        return int(any(command[1:] == dev.CHECKS[name] for name in broken))

    monkeypatch.setattr(dev.subprocess, "call", call)
    assert dev.check() == bool(broken)
    assert ran == list(dev.CHECKS.values())
    summary = capsys.readouterr().err.splitlines()[-1]
    assert {name for name in dev.CHECKS if name in summary} == broken


# ------------------------------------------------------------------------------------------------------- engines


class EnginePip:
    """Stands for ``pip_install``: fails for the environments of ``broken`` engines."""

    def __init__(self, broken: set[str]) -> None:
        self.broken = broken
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, arguments: list[str], python: str) -> int:
        engine = Path(python).parents[1].name.removeprefix(".venv-")
        self.asked.append((engine, arguments))
        return int(engine in self.broken)


@pytest.mark.parametrize("broken", [set(), {"flower"}, {"flower", "nvflare"}])
def test_engines_are_tested_in_environments_of_their_own(
    dev: ModuleType,
    made: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: set[str],
) -> None:
    pip, ran = EnginePip(broken), []

    def make_venv(place: str) -> None:
        python = Path(place) / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(dev, "make_venv", make_venv)
    monkeypatch.setattr(dev, "pip_install", pip)
    monkeypatch.setattr(dev.subprocess, "call", lambda command: ran.append(command) or 0)
    assert dev.main(["integrations", "-x"]) == bool(broken)
    assert {engine for engine, _ in pip.asked} == {"flower", "nvflare"}
    tested = [Path(command[0]).parents[1].name for command in ran]
    assert tested == [f".venv-{engine}" for engine in ("flower", "nvflare") if engine not in broken]
    assert all(command[-1] == "-x" and "slow or not slow" in command for command in ran)
    summary = capsys.readouterr().err.splitlines()[-1]
    assert {engine for engine in dev.ENGINES if f"{engine} (not installed, so not tested)" in summary} == broken
    asked = len(pip.asked)
    dev.main(["integrations"])
    assert {engine for engine, _ in pip.asked[asked:]} == broken  # what is there is not installed again


def test_a_failing_engine_test_fails_the_task(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "install_engine", lambda engine: "/python")
    monkeypatch.setattr(dev.subprocess, "call", lambda command: int("tests/integrations/test_nvflare.py" in command))
    assert dev.main(["integrations"]) == 1


def test_the_tests_of_engines_exist(dev: ModuleType) -> None:
    for _, _, files in dev.ENGINES.values():
        assert all((ROOT / file).is_file() for file in files)


# --------------------------------------------------------------------------------------------------------- peers


def test_the_first_peer_is_the_one_pyproject_names(dev: ModuleType) -> None:
    assert dev.PEERS[0][0] == dev.PEER
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["bench"] == [dev.PEER]


@pytest.mark.parametrize(
    ("statuses", "missing"), [([0, 0, 0, 0], []), ([1, 0, 0], [0]), ([0, 1, 0, 0], [0]), ([0, 0, 1], [1])]
)
def test_peers_are_installed_once_or_noted(
    dev: ModuleType,
    made: list[str],
    become: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: list[int],
    missing: list[int],
) -> None:
    dev.make_venv()
    dev.write_stamp(stamp_of("all"))
    pip = Pip(dev.STAMP, *statuses)
    monkeypatch.setattr(dev, "pip_install", pip)
    dev.main(["bench", "--peers", "masking"])
    assert [asked[1] for asked in pip.asked if asked[0] == "--no-deps"] == [peer for peer, _ in dev.PEERS]
    said, installed = capsys.readouterr().err, not missing
    for at, (peer, _) in enumerate(dev.PEERS):
        assert (f"note: {peer} could not" in said) == (at in missing)
    assert dev.read_stamp() == {**stamp_of("all"), "peer": installed}
    assert become == [[dev.PYTHON, "-m", "securefl", "bench", "masking"]]
    if installed:
        dev.main(["bench", "--peers", "masking"])
        assert len(pip.asked) == 2 * len(dev.PEERS)
