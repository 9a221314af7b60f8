"""A run under shares is the plain run, bit for bit: with dropouts, and with compressed vectors of several ranges."""

import pytest

from securefl.fl.config import parse
from securefl.fl.runner import Run


@pytest.mark.parametrize("chain", [[], ["random_k", "rotated"]])
def test_shared_and_plain_end_in_the_same_model(tmp_path, chain):
    hashes = {}
    for method in ("plain", "shared"):
        config = parse(
            {
                "data": {"clients": 5},
                "training": {"rounds": 2},
                "compression": {"chain": chain},
                "protection": {"method": method, "threshold": 2, "suite": "x25519"},
                "faults": {"dropout": 0.3},
            }
        )
        run = Run(config, tmp_path / method)
        survivors = [record.survivors for record in run.rounds()]
        hashes[method] = (run.finish().result.model_hash, survivors)
    assert hashes["plain"] == hashes["shared"]
    assert any(len(each) < 5 for each in hashes["shared"][1])


def test_the_plan_has_the_bytes_of_the_run(tmp_path):
    from securefl.fl.plan import plan

    config = parse(
        {
            "data": {"clients": 5},
            "training": {"rounds": 1},
            "compression": {"chain": []},
            "protection": {"method": "shared", "threshold": 2},
        }
    )
    (record,) = Run(config, tmp_path).rounds()
    made = plan(config)
    assert made.upload["shared"] == record.upload_bytes_per_client
    assert made.download["shared"] == record.download_bytes_per_client
    assert "masked" not in made.upload  # two of five are no majority
