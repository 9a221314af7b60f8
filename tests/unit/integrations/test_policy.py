"""A client's floors: where they come from, what they refuse, and what they let pass."""

from dataclasses import replace
from pathlib import Path

import pytest

from securefl.errors import ConfigurationError, TooFewClientsError
from securefl.integrations.invitation import Invitation
from securefl.integrations.policy import Policy
from securefl.integrations.terms import NoiseTerms

FINE = Invitation(
    "train", "masked", "x25519", b"s", 1, 10, 6, 16, 1.0, 0.0, 64, "n", (), (("m", 1.0),), bytes(32), bytes(32)
)


def test_no_setting_is_no_policy_and_defaults_refuse_plain_sums() -> None:
    assert Policy.of({"partition-id": 3}) is None
    Policy().check(FINE)
    with pytest.raises(ConfigurationError, match="unprotected"):
        Policy().check(replace(FINE, protect="plain"))
    Policy(allow_plain=True).check(replace(FINE, protect="plain"))


@pytest.mark.parametrize(
    ("policy", "changes", "fine"),
    [
        (Policy(minimum_clients=11), {}, {"clients": 11}),
        (Policy(minimum_threshold=7), {}, {"threshold": 7}),
        (Policy(minimum_survivors=11), {}, {"clients": 11}),
        (Policy(), {"threshold": 5}, {"threshold": 6}),
        (Policy(), {"clients": 2, "threshold": 2}, {"clients": 3, "threshold": 2}),
    ],
)
def test_floors_refuse_what_lies_below_and_take_what_lies_on_them(policy: Policy, changes: dict, fine: dict) -> None:
    with pytest.raises(TooFewClientsError):
        policy.check(replace(FINE, **changes))
    policy.check(replace(FINE, **fine))


def test_noise_and_unknown_protections() -> None:
    noisy = replace(FINE, metrics=(), noise=NoiseTerms(1.0, 0.7, 10, 6, 0))
    Policy(minimum_noise=0.7).check(noisy)
    with pytest.raises(ConfigurationError, match=r"0\.7 is proposed"):
        Policy(minimum_noise=0.71).check(noisy)
    short = replace(noisy, noise=NoiseTerms(1.0, 0.7, 10, 7, 0))
    with pytest.raises(ConfigurationError, match="sized for 7 survivors"):
        Policy().check(short)
    with pytest.raises(ConfigurationError, match="unknown here"):
        Policy(allow_plain=True).check(replace(FINE, protect="rot13"))


def test_the_sum_has_the_higher_of_both_floors() -> None:
    assert Policy(minimum_survivors=8).survivors_for(FINE) == 8
    assert Policy(minimum_survivors=2).survivors_for(FINE) == FINE.threshold


def test_a_node_and_a_file_speak_and_the_stricter_wins(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("minimum_clients = 8\nallow_plain = true\nminimum_threshold = 3\n")
    of_file = Policy.of({"securefl-policy": str(file)})
    # the node's line states only a floor, and by it forbids what it does not permit
    both = Policy.of({"securefl-policy": str(file), "securefl-minimum-threshold": 5})
    assert of_file == Policy(minimum_clients=8, minimum_threshold=3)
    assert both == Policy(minimum_clients=8, minimum_threshold=5)
    merged = Policy(allow_plain=True, minimum_noise=1.0).stricter(Policy(allow_plain=True, minimum_clients=4))
    assert merged == Policy(allow_plain=True, minimum_noise=1.0, minimum_clients=4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"securefl-minimum-client": 3}, "no setting"),
        ({"securefl-minimum-clients": "3"}, "whole number"),
        ({"securefl-minimum-clients": 1}, "at least 2"),
        ({"securefl-minimum-survivors": True}, "whole number"),
        ({"securefl-minimum-noise": float("inf")}, "minimum_noise"),
        ({"securefl-allow-plain": 1}, "true or false"),
        ({"securefl-policy": "/nowhere/policy.toml"}, "cannot be read"),
    ],
)
def test_a_mistyped_policy_is_not_taken_for_none(settings: dict, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Policy.of(settings)


def test_a_file_with_unknown_keys_or_bad_syntax_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    for text, says in (("minimum = 3\n", "no setting"), ("minimum_clients = \n", "cannot be read")):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=says):
            Policy.of({"securefl-policy": str(file)})
