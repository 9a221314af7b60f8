"""Every known-answer vector, one test each; and the self-test, which must find what is wrong and raise nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from securefl.audit import selftest
from securefl.audit.checks import Mismatch, expect, refused
from securefl.errors import ConfigurationError, DecodeError, FaultyClientError, MissingExtraError
from securefl.primitives import kdf

PROTOCOLS = Path(__file__).resolve().parents[2] / "protocols"
FILES = sorted(PROTOCOLS.glob("*/vectors/*.json"))


def documents(protocol: str) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in FILES if path.parts[-3] == protocol}


CASES = {protocol: selftest._cases(documents(protocol)) for protocol in {path.parts[-3] for path in FILES}}
TESTS = [
    pytest.param(protocol, group["operation"], case, id=f"{protocol}-{name.removesuffix('.json')}-{test['id']}")
    for protocol in sorted(CASES)
    for name, document in documents(protocol).items()
    for group in document["groups"]
    for test in group["tests"]
    for case in [CASES[protocol][f"{name}#{test['id']}"]]
]


@pytest.mark.parametrize(("protocol", "operation", "case"), TESTS)
def test_vector(protocol: str, operation: str, case: selftest.Case) -> None:
    selftest._check(protocol, operation)(case)


def test_the_self_test_runs_all_of_them() -> None:
    result = selftest.run()
    assert Path(result.folder) == PROTOCOLS
    assert [item.path for item in result.files] == [str(path.relative_to(PROTOCOLS)) for path in FILES]
    assert (result.passed, result.failed, result.skipped) == (len(TESTS), 0, 0)
    assert json.loads(json.dumps(result.as_dict()))["passed"] == len(TESTS)


def test_every_error_vector_is_derived_from_an_accepted_one_of_its_protocol() -> None:
    for protocol, cases in CASES.items():
        for key, case in cases.items():
            if case.error is not None:
                assert cases[case.test["derived_from"]].error is None, (protocol, key)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Two of the protocols, the quick ones."""
    for name in ("wire", "encoding"):
        shutil.copytree(PROTOCOLS / name, tmp_path / "protocols" / name)
    return tmp_path / "protocols"


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """The sessions and the faults made from them."""
    folder = tmp_path / "protocols" / "secagg" / "vectors"
    folder.mkdir(parents=True)
    for name in ("session.json", "dropouts.json", "faults.json"):
        shutil.copy(PROTOCOLS / "secagg" / "vectors" / name, folder)
    return tmp_path / "protocols"


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def of(result: selftest.SelfTest, path: str) -> selftest.FileResult:
    return next(item for item in result.files if item.path == path)


def test_a_wrong_answer_is_reported(sessions: Path) -> None:
    name = "secagg/vectors/session.json"
    vector = json.loads((sessions / name).read_text())
    total = vector["groups"][0]["tests"][0]["expected"]["sum"]
    total[0] += 1
    (sessions / name).write_text(json.dumps(vector))
    result = of(selftest.run(sessions), name)
    assert (result.passed, result.failed) == (2, 1)
    assert result.first_failure == "x25519-three: how the recorded session ends differs"


def test_an_accepted_fault_is_reported(copy: Path) -> None:
    name = "wire/vectors/malformed.json"
    vector = json.loads((copy / name).read_text())
    good = json.loads((copy / "wire/vectors/valid.json").read_text())["groups"][0]["tests"][1]["expected"]["frame"]
    vector["groups"][0]["tests"][0]["input"]["frame"] = good
    (copy / name).write_text(json.dumps(vector))
    assert of(selftest.run(copy), name).first_failure == "empty: accepted, although DecodeError is due"


def test_another_version_protocol_or_operation_is_reported(copy: Path) -> None:
    changed(copy / "wire/vectors/valid.json", '"version": 1', '"version": 2')
    changed(copy / "wire/vectors/fields.json", '"operation": "fields"', '"operation": "unheard_of"')
    shutil.copytree(copy / "encoding", copy / "unheard-of")
    result = selftest.run(copy)
    assert "a version that this package does not know" in str(of(result, "wire/vectors/valid.json").first_failure)
    assert "no check for the operation 'unheard_of'" in str(of(result, "wire/vectors/fields.json").first_failure)
    assert of(result, "unheard-of/vectors/lanes.json").passed == 0
    assert result.failed > 30
    assert result.passed > 60


@pytest.mark.parametrize("text", ["", "{", "[]", '{"groups": [{}]}', '{"groups": [{"params": {}, "tests": [{}]}]}'])
def test_what_is_no_vector_file_is_reported(copy: Path, text: str) -> None:
    (copy / "wire/vectors/valid.json").write_text(text)
    result = selftest.run(copy)
    assert str(of(result, "wire/vectors/valid.json").first_failure).startswith("not a vector file")
    assert of(result, "encoding/vectors/layout.json").failed == 0
    assert of(result, "encoding/vectors/layout.json").passed > 10


def test_a_missing_baseline_is_reported(sessions: Path) -> None:
    (sessions / "secagg/vectors/session.json").unlink()
    result = selftest.run(sessions)
    assert "unexpected KeyError" in str(of(result, "secagg/vectors/faults.json").first_failure)


def test_an_id_twice_is_reported(copy: Path) -> None:
    changed(copy / "wire/vectors/malformed.json", '"id": "header-only"', '"id": "empty"')
    assert "empty twice" in str(of(selftest.run(copy), "wire/vectors/malformed.json").first_failure)


def test_a_missing_extra_skips(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_extra(protocol: str, operation: str) -> selftest.Check:
        raise MissingExtraError("install securefl[extra]")

    monkeypatch.setattr(selftest, "_check", needs_extra)
    result = selftest.run(copy)
    assert (result.passed, result.failed) == (0, 0)
    assert result.skipped > 100


def test_a_broken_package_fails_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong label in the library: sessions, keys and faults say so."""
    monkeypatch.setattr(kdf.Label.PAIR_STREAM, "_value_", b"securefl/v1/secagg/pair-strean")
    result = selftest.run()
    failed = {item.path for item in result.files if item.failed}
    of_sessions = {
        f"secagg/vectors/{name}.json" for name in ("dropouts", "faults", "masking", "session", "signed_sessions")
    }
    assert failed == of_sessions | {"shells/vectors/sums.json"}


def test_the_installed_copy_is_used_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "securefl"
    shutil.copytree(PROTOCOLS, package / "_protocols")
    monkeypatch.setattr("securefl.__file__", str(package / "__init__.py"))
    assert selftest.protocols_folder() == package / "_protocols"
    (package.parent / "protocols").mkdir()  # somebody else's package of that name
    assert selftest.protocols_folder() == package / "_protocols"
    shutil.rmtree(package / "_protocols")
    with pytest.raises(ConfigurationError, match="no vectors were found"):
        selftest.protocols_folder()


def refuse(error: Exception) -> None:
    raise error


def test_a_check_wants_exactly_the_error_named() -> None:
    refused({"type": "FaultyClientError", "blamed": [3, 7]}, lambda: refuse(FaultyClientError("", [7, 3])))
    with pytest.raises(Mismatch, match="DecodeError, not FaultyClientError"):
        refused({"type": "FaultyClientError"}, lambda: refuse(DecodeError("")))
    with pytest.raises(Mismatch, match="who is blamed"):
        refused({"type": "FaultyClientError", "blamed": [3]}, lambda: refuse(FaultyClientError("", [7])))
    with pytest.raises(ZeroDivisionError):
        refused({"type": "DecodeError"}, lambda: refuse(ZeroDivisionError()))
    with pytest.raises(Mismatch, match=r"^what differs$"):
        expect("what", b"secret", b"other")
