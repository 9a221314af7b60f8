"""Personal models against the shared one: every client's accuracy on its own held-out examples.

digits, pixels / 16, 20 clients, Dirichlet(0.1), 30 % of each client's examples held out, MLP 64-128-64-10, 100 rounds
of 7 steps of batch 10, SGD 0.1, FedAvg, seeds 0 to 4, under plain sums (the integers are the same under every
protection). Mean over clients, each counting the same, and mean over the worst tenth. The second block has inputs
scaled as the bundled dataset is (centred, / 2) and 30 rounds: the shared model converges much faster there, and less is
left to gain.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from sklearn.datasets import load_digits

from securefl.cli.output import print_table
from securefl.encoding.quantize import FixedPoint
from securefl.fl import data, models, partition
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.algorithms import LocalAlgorithm
from securefl.fl.fedavg import FedAvg
from securefl.fl.local_head import LocalHead
from securefl.fl.models import head_of, tensors_of
from securefl.fl.personalization import Ditto, FineTune, Interpolate, Personalizer
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining
from securefl.fl.workload import Workload, hold_out
from securefl.plain import PlainSum

CLIENTS, ALPHA = 20, 0.1
TUNED: dict[str, Personalizer] = {
    "fine-tuned, 35 steps": FineTune(35, 0.1),
    "fine-tuned, head only": FineTune(35, 0.1, head=True),
    "interpolated, 1/2": Interpolate(FineTune(35, 0.1)),
    "interpolated, chosen by each": Interpolate(FineTune(35, 0.1), choose=True),
}
SHARED = "the shared model"


def workload(seed: int, *, pixels: bool) -> Workload:
    """The clients of a seed; with ``pixels`` in [0, 1], otherwise as bundled."""
    seeds = SeedTree(seed)
    if pixels:
        raw, targets = load_digits(return_X_y=True)
        train = data.from_arrays(raw / 16, targets, name="digits")
    else:
        train, _ = data.load("digits", seeds.child("data"), test_fraction=0.01)
    rows = partition.dirichlet(train.targets, CLIENTS, seeds.child("partition"), alpha=ALPHA)
    kept, held = hold_out(rows, train.targets, 0.3, seeds.child("held out"))
    model = models.build("mlp", input_shape=(64,), classes=10, seeds=seeds.child("model"), hidden=(128, 64))
    return Workload(model, train, train, kept, held)  # the common test set is not looked at here


def accuracies(seed: int, rounds: int, *, pixels: bool) -> dict[str, tuple[float, float]]:
    """Method → (mean, worst tenth), of one seed."""
    prepared = workload(seed, pixels=pixels)
    settings = LocalTraining(batch_size=10, learning_rate=0.1, steps=7)

    def run(algorithm: LocalAlgorithm | None = None, personalizer: Personalizer | None = None) -> FedAvg:
        aggregator = ProtectedAggregator(PlainSum(), 12, FixedPoint(1.0, 16), max_weight=512)
        made = FedAvg(
            prepared,
            aggregator,
            settings,
            rounds=rounds,
            seed=seed,
            algorithm=algorithm,
            personalizer=personalizer,
        )
        made.run()
        return made

    found: dict[str, tuple[float, float]] = {}
    # Ditto leaves the shared model as it is, so one run serves all that start from it.
    shared = run(personalizer=Ditto(0.1))
    for name, personalizer in {"Ditto, pull 0.1": shared.personalizer, **TUNED}.items():
        shared.personalizer = personalizer
        report = shared.personal_report()
        assert report is not None
        found[SHARED] = report.mean(shared=True) or 0.0, report.worst_tenth(shared=True) or 0.0
        found[name] = report.mean() or 0.0, report.worst_tenth() or 0.0
    report = run(LocalHead(frozenset(head_of(tensors_of(prepared.model))))).personal_report()
    assert report is not None
    found["FedPer, own last layer"] = report.mean() or 0.0, report.worst_tenth() or 0.0
    return found


def measure(quick: bool) -> dict[str, Any]:
    """Accuracies by block and method: mean over seeds, and the gain over the shared model."""
    seeds = 1 if quick else 5
    blocks: dict[str, Any] = {"seeds": seeds}
    for pixels, rounds in ((True, 10 if quick else 100), (False, 10 if quick else 30)):
        block = f"{'pixels / 16' if pixels else 'as bundled'}, {rounds} rounds"
        runs = [accuracies(seed, rounds, pixels=pixels) for seed in range(seeds)]
        blocks[block] = {
            name: {
                "mean": fmean(run[name][0] for run in runs),
                "worst_tenth": fmean(run[name][1] for run in runs),
                "mean_gain": fmean(run[name][0] - run[SHARED][0] for run in runs),
                "worst_tenth_gain": fmean(run[name][1] - run[SHARED][1] for run in runs),
                "mean_gain_per_seed": [run[name][0] - run[SHARED][0] for run in runs],
            }
            for name in runs[0]
        }
    return blocks


def show(figures: dict[str, Any]) -> None:
    """One table per block."""
    for block, methods in figures.items():
        if isinstance(methods, dict):
            print_table(
                f"personal models: digits ({block}), {CLIENTS} clients, Dirichlet({ALPHA}), {figures['seeds']} seeds",
                ("model", "mean %", "worst tenth %", "gain in the mean", "gain in the worst tenth"),
                [
                    (
                        name,
                        f"{100 * row['mean']:.2f}",
                        f"{100 * row['worst_tenth']:.2f}",
                        *(
                            ("", "")
                            if name == SHARED
                            else (_points(row["mean_gain"]), _points(row["worst_tenth_gain"]))
                        ),
                    )
                    for name, row in methods.items()
                ],
            )


def _points(gain: float) -> str:
    return f"{100 * gain:+.2f}"
