"""Runs of split learning that stop after a round and go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from securefl.errors import ConfigurationError, DecodeError
from securefl.fl.config import Config, parse
from securefl.fl.run_folder import saved_config
from securefl.split.progress import part_of, restore_part
from securefl.split.runner import SplitRun


def _config(protect: str = "plain", order: str = "parallel", rounds: int = 4, **split: object) -> Config:
    return parse(
        {
            "data": {"clients": 3, "partition": "iid"},
            "model": {"hidden": [8]},
            "training": {"rounds": rounds, "batch_size": 160, "learning_rate": 0.1},
            "protection": {"suite": "x25519"},
            "split": {"protect": protect, "order": order, "leakage": False, **split},
        }
    )


def _finish(run: SplitRun) -> tuple[str | None, list[float], list[int]]:
    list(run.rounds())
    finished = run.finish()
    return finished.model_hash, [r.loss for r in finished.records], [r.round for r in finished.records]


def _stop_after(rounds: int, config: Config, out: Path) -> SplitRun:
    run = SplitRun(config, out)
    running = run.rounds()
    for _ in range(rounds):
        next(running)
    if run.training.privacy is not None:
        run.training.privacy.ledger.close()
    return run


@pytest.mark.parametrize(("protect", "order"), [("plain", "parallel"), ("plain", "sequential"), ("ckks", "parallel")])
def test_a_run_that_stopped_ends_with_the_model_of_an_unbroken_one(protect: str, order: str, tmp_path: Path) -> None:
    """Momenta of all parties included: the same bits."""
    if protect == "ckks":
        pytest.importorskip("tenseal")
    more = {"ciphertexts": "compact"} if protect == "ckks" else {}
    config = _config(protect, order, **more)
    whole = _finish(SplitRun(config, tmp_path / "whole"))
    _stop_after(2, config, tmp_path / "broken")
    resumed = SplitRun(config, tmp_path / "broken", resume=True)
    assert resumed.rounds_done == 2
    assert "resumed after round 2" in " ".join(resumed.headline())
    found = _finish(resumed)
    if protect == "ckks":  # the weight gradients' grid is rounded by fresh coins in every run, interrupted or not
        assert np.allclose(found[1], whole[1], atol=2e-2)
    else:
        assert found == whole
    longer = SplitRun(_config(protect, order, rounds=5, **more), tmp_path / "broken", resume=True)
    assert longer.rounds_done == 4
    assert _finish(longer)[2] == [1, 2, 3, 4, 5]


def test_a_charged_round_is_not_repeated(tmp_path: Path) -> None:
    config = _config("noise", epsilon=50.0)
    run = _stop_after(1, config, tmp_path)
    run.training.privacy.open(tmp_path / "ledger.sqlite", config.digest())  # killed in the second round
    run.training.privacy.charge(2)
    run.training.privacy.ledger.close()
    resumed = SplitRun(config, tmp_path, resume=True)
    _, _, rounds = _finish(resumed)
    assert rounds == [1, 3, 4]
    assert resumed.training.lost == [2]
    with pytest.raises(ConfigurationError, match="the noise was calibrated"):
        SplitRun(_config("noise", rounds=6, epsilon=50.0), tmp_path, resume=True)
    for other in (config, _config("noise", epsilon=5.0), _config()):
        with pytest.raises(ConfigurationError, match="go on with it by --resume"):
            SplitRun(other, tmp_path)
        assert saved_config(tmp_path) == config  # what is refused leaves the run as it was
    resumed.training.privacy.ledger.close()
    for path in tmp_path.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(ConfigurationError, match="round 1 of this run is not in"):
        SplitRun(config, tmp_path, resume=True)


def test_servers_that_a_refused_run_connected_to_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Servers:
        closed = False

        def close(self) -> None:
            self.closed = True

    def refused(*_: object, **__: object) -> None:
        raise ConfigurationError("cannot work")

    servers = Servers()
    monkeypatch.setattr("securefl.split.runner.connect", lambda _: servers)
    monkeypatch.setattr("securefl.split.runner.SplitTraining", refused)
    (tmp_path / "cluster.toml").touch()
    with pytest.raises(ConfigurationError, match="cannot work"):
        SplitRun(_config("shared", cluster=str(tmp_path / "cluster.toml")), tmp_path)
    assert servers.closed


def test_what_cannot_go_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        SplitRun(_config(), tmp_path / "nothing", resume=True)
    _stop_after(1, _config(), tmp_path)
    with pytest.raises(ConfigurationError, match="belongs to another run"):
        SplitRun(_config(momentum=0.5), tmp_path, resume=True)
    with pytest.raises(ConfigurationError, match="'shared' cannot be resumed"):
        SplitRun(_config("shared"), tmp_path, resume=True)
    (tensors,) = (tmp_path / "checkpoint").glob("tensors-*.npz")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DecodeError, match="damaged"):
        SplitRun(_config(), tmp_path, resume=True)


def test_parts_of_other_models_change_nothing() -> None:
    part, other = nn.Linear(3, 2), nn.Linear(4, 2)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9) for module in (part, other)]
    part(torch.ones(1, 3)).sum().backward()
    optimizers[0].step()
    kept = part_of(part, optimizers[0])
    before = other.weight.detach().clone()
    with pytest.raises(DecodeError, match=r"does not fit|another model"):
        restore_part(other, optimizers[1], kept)
    with pytest.raises(DecodeError, match="does not fit"):
        restore_part(part, optimizers[0], {**kept, "momentum/7": np.zeros(2, np.float32)})
    with pytest.raises(DecodeError, match="that this run does not"):
        restore_part(nn.Identity(), None, kept)
    assert torch.equal(other.weight, before)
    assert part_of(nn.Identity(), None) == {}


@pytest.mark.parametrize("name", ["momentum/first", "momentum/-1", "bias", "tensors/weight", ""])
def test_arrays_that_no_part_has_are_refused_by_name(name: str) -> None:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    arrays = {**part_of(module, optimizer), name: np.zeros(2, np.float32)}
    with pytest.raises(DecodeError, match="which no part of a model has"):
        restore_part(module, optimizer, arrays)
