"""Compressed aggregation: the same under every protection, state, disagreement, dropouts, plans."""

import numpy as np
import pytest

from securefl.encoding.chain import Chain
from securefl.encoding.compressor import Scale
from securefl.encoding.lowrank import PowerSGD
from securefl.encoding.project import RandomProjection
from securefl.encoding.quantize import FixedPoint
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.sparsify import PrunedSupport, RandomK
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.compressed import CompressedAggregator, Compression
from securefl.fl.compression import pruning_of
from securefl.fl.config import parse
from securefl.fl.dropouts import Dropouts
from securefl.fl.fedavg import FedAvg
from securefl.fl.interfaces import Contribution
from securefl.fl.plan import plan
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.fl.workload import prepare
from securefl.transport import memory
from securefl.types import PartyId

CLIENTS = tuple(PartyId(i) for i in range(1, 6))
MASK = np.arange(40 * 25 + 40) % 2 == 0
CHAINS = {
    "none": Compression(),
    "fixed": Compression(quantizer=None),
    "exact": Compression(quantizer=RotatedQuantizer(7, "exact")),
    "random_k": Compression(Chain((RandomK(0.2, unbiased=True),)), error_feedback=False),
    "random_k feedback": Compression(Chain((RandomK(0.2),)), decay=0.9),
    "projection": Compression(Chain((RandomProjection(0.2),)), RotatedQuantizer(2)),
    "powersgd": Compression(Chain((PowerSGD(2),)), RotatedQuantizer(15)),
    "pruned": Compression(Chain((PrunedSupport(MASK), RandomK(0.5)))),
}


def contributions(round, shape=(40, 25)):
    result = {}
    for client in CLIENTS:
        rng = np.random.default_rng([round, client])
        tensors = {"w": rng.normal(0.01, 0.02, shape), "b": rng.normal(0, 0.05, shape[0])}
        tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
        result[client] = Contribution(tensors, 10 + client, SeedTree(round).child(client).bytes(32))
    return result


def aggregator(compression, method="plain", **changes):
    settings = {
        "protection": protection_named(method, "x25519"),
        "threshold": 3,
        "compression": compression,
        "grid": FixedPoint(1.0, 16),
        "max_weight": 16,
        "public_seed": b"s" * 32,
        "shadow": True,
    }
    return CompressedAggregator(**(settings | changes))


def equal(left, right):
    return all((left[name] == right[name]).all() for name in left)


@pytest.mark.parametrize("name", CHAINS)
def test_every_protection_sums_the_same_integers(name, monkeypatch):
    sums = {"plain": [], "masked": []}
    means = {}
    for method, kept in sums.items():

        def keep(*args, kept=kept, **kwargs):
            outcome = memory.run_session(*args, **kwargs)
            kept.append((outcome.result.values.tobytes(), outcome.result.survivors))
            return outcome

        monkeypatch.setattr("securefl.fl.collection.run_session", keep)
        dropouts = Dropouts(0.15, SeedTree(1))
        run = aggregator(CHAINS[name], method, dropouts=dropouts)
        means[method] = [run.aggregate(round, bytes(32), contributions(round)) for round in (1, 2, 3)]
    assert sums["plain"] == sums["masked"]
    assert any(len(result.survivors) < 5 for result in means["plain"])
    for plain, masked in zip(means["plain"], means["masked"], strict=True):
        assert equal(plain.mean, masked.mean)
        assert set(plain.vector_bytes.values()) == set(masked.vector_bytes.values())


@pytest.mark.parametrize("name", CHAINS)
def test_the_state_carries_a_run_over(name):
    first, second = aggregator(CHAINS[name]), aggregator(CHAINS[name])
    for round in (1, 2):
        first.aggregate(round, bytes(32), contributions(round))
    second.restore(first.state())
    left, right = (run.aggregate(3, bytes(32), contributions(3)) for run in (first, second))
    assert equal(left.mean, right.mean)


def test_error_falls_with_levels_and_the_first_round_is_fine():
    errors = []
    for levels in (3, 15, 255):
        run = aggregator(Compression(quantizer=RotatedQuantizer(levels, clip_multiple=5.0)))
        first, second = (run.aggregate(round, bytes(32), contributions(round)) for round in (1, 2))
        assert first.relative_error < 1e-4
        errors.append(second.relative_error)
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("method", ["plain", "masked"])
def test_clients_with_another_seed_or_scale_are_refused_not_summed(method):
    """Two of five clients encode for another round's public seed: their frames are refused, the others are summed."""
    honest, other = (
        aggregator(CHAINS["random_k"], method),
        aggregator(CHAINS["random_k"], method, public_seed=b"t" * 32),
    )
    other.session = honest.session
    tensors = contributions(1)[CLIENTS[0]].tensors
    (context,), (foreign,) = (run.contexts(tensors, CLIENTS, None) for run in (honest, other))
    assert (context.segments, context.dimension) == (foreign.segments, foreign.dimension)

    class Split:
        name, vector_frame = honest.protection.name, honest.protection.vector_frame

        def client(self, context, me):
            return honest.protection.client(foreign if me in CLIENTS[:2] else context, me)

        def server(self, context):
            return honest.protection.server(context)

        def others(self, context):
            return {}

    values = np.zeros(context.dimension, dtype=np.uint64)
    outcome = memory.run_session(Split(), context, lambda client: values)
    assert outcome.unwrap().survivors == CLIENTS[2:]
    assert any("another session" in str(error) for _, error in outcome.failures)


def test_whatever_clients_must_share_changes_the_context():
    tensors = contributions(1)[CLIENTS[0]].tensors
    variants = [
        aggregator(CHAINS["random_k"]),
        aggregator(CHAINS["random_k"], public_seed=b"t" * 32),
        aggregator(CHAINS["random_k"], max_weight=17),
        aggregator(CHAINS["random_k"], grid=FixedPoint(2.0, 16)),
        aggregator(CHAINS["random_k feedback"]),
        aggregator(CHAINS["projection"]),
    ]
    hashes = {run.contexts(tensors, CLIENTS, None)[0].encoding for run in variants}
    hashes |= {variants[0].contexts(tensors, CLIENTS, Scale(1.0, total))[0].encoding for total in (1.0, 2.0)}
    assert len(hashes) == len(variants) + 2


def test_a_model_that_changes_between_rounds_is_refused():
    run = aggregator(CHAINS["random_k feedback"])
    run.aggregate(1, bytes(32), contributions(1))
    with pytest.raises(InvalidInputError, match="changed its tensors"):
        run.aggregate(2, bytes(32), contributions(2, (20, 25)))


def test_values_that_are_not_finite_name_the_client():
    broken = contributions(1)
    broken[CLIENTS[1]].tensors["w"][0, 0] = np.nan
    with pytest.raises(InvalidInputError, match="client 2, round 1"):
        aggregator(CHAINS["none"]).aggregate(1, bytes(32), broken)


def test_a_failed_round_keeps_the_residuals_of_before():
    run = aggregator(CHAINS["random_k feedback"])
    run.aggregate(1, bytes(32), contributions(1))
    before = {client: value.copy() for client, value in run.feedback.residuals.items()}
    run.dropouts = Dropouts(0.999, SeedTree(0))
    with pytest.raises(TooFewClientsError):
        run.aggregate(2, bytes(32), contributions(2))
    assert all((run.feedback.residuals[client] == before[client]).all() for client in before)


def run_of(values, **more):
    config = parse(values)
    workload = prepare(config)
    pruning = pruning_of(config.compression)
    made = aggregator_of(config, config.protection.max_weight_for(workload.weights.values()), pruning=pruning)
    return FedAvg.from_config(config, workload, made, pruning=pruning, **more)


BASE = {"data": {"clients": 5, "partition": "iid"}, "training": {"rounds": 3}, "protection": {"method": "plain"}}


@pytest.mark.parametrize(
    "section",
    [
        {"chain": ["powersgd", "rotated"], "levels": 15},
        {"chain": ["random_k", "rotated"], "error_feedback": True},
        {"chain": ["pruned", "rotated"], "final_sparsity": 0.5, "end_round": 3, "download_bits": 8},
    ],
)
def test_a_resumed_run_is_the_unbroken_one(section, tmp_path):
    values = BASE | {"compression": section}
    whole = run_of(values).run()
    short = run_of(values, checkpoint=tmp_path)
    next(short.rounds_left())
    later = run_of(values, checkpoint=tmp_path)
    assert later.resume() == 1
    assert later.run().model_hash == whole.model_hash


@pytest.mark.parametrize(
    "server", [{"server_momentum": 0.9}, {"server_optimizer": "yogi", "server_learning_rate": 0.1}]
)
def test_a_server_with_momentum_does_not_bring_back_what_was_pruned(server):
    values = {
        "data": {"clients": 4},
        "model": {"hidden": [8]},
        "training": {"rounds": 4, **server},
        "protection": {"method": "plain"},
        "compression": {"chain": ["pruned"], "end_round": 4, "final_sparsity": 0.8},
    }
    run = run_of(values)
    tensors = run.run().tensors
    assert run.pruning.sparsity > 0.7
    assert not any(value[~run.pruning.mask[name]].any() for name, value in tensors.items())


def test_pruned_runs_upload_less_and_downloads_are_counted():
    section = {"chain": ["pruned", "fixed_point"], "final_sparsity": 0.8, "end_round": 3, "download_bits": 4}
    result = run_of(BASE | {"compression": section}).run()
    uploads = [record.vector_bytes_per_client for record in result.records]
    assert uploads[2] < 0.4 * uploads[0]
    assert result.records[0].model_bytes < 4810 * 4 / 6
    assert sum(int((value == 0).sum()) for value in result.tensors.values()) > 0.7 * 4810


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"chain": ["rotated", "random_k"]}, "out of order"),
        ({"chain": ["random_k", "random_k"]}, "twice"),
        ({"chain": ["random_k", "powersgd"]}, "both"),
        ({"chain": ["rotated", "fixed_point"]}, "both"),
        ({"chain": ["pruned", "powersgd"]}, "whole matrices"),
        ({"chain": ["rotated"], "rank": 2}, "rank has no effect"),
        ({"chain": ["top_k"]}, "chain"),
        ({"chain": ["random_k"], "fraction": 0.0}, "fraction"),
        ({"chain": ["rotated"], "levels": 1}, "levels"),
        ({"level": 3}, "did you mean 'levels'"),
        ({"chain": ["pruned"], "begin_round": 9, "end_round": 3}, "before"),
    ],
)
def test_wrong_sections_are_refused(section, message):
    with pytest.raises(ConfigurationError, match=message):
        parse({"compression": section})


def test_the_plan_is_what_the_frames_come_to():
    values = BASE | {"compression": {"chain": ["random_k", "rotated"], "width": "exact"}}
    made = plan(parse(values))
    record = run_of(values | {"training": {"rounds": 2}}).run().records[1]
    assert made.upload["plain"] == record.upload_bytes_per_client == made.sums[0].vector_bytes
    masked = run_of(values | {"training": {"rounds": 2}, "protection": {"method": "masked"}}).run().records[1]
    assert made.upload["masked"] == pytest.approx(masked.upload_bytes_per_client, abs=1)
    assert made.download["masked"] == pytest.approx(masked.download_bytes_per_client, abs=1)
    assert made.sums[0].exact
    assert made.model_bytes == 4 * made.parameters
