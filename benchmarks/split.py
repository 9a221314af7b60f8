"""Split learning: the encrypted linear layer beside TenSEAL's, training beside plain split learning, and the attacks.

    securefl bench split [--quick] [--json PATH]

Layer: 256 to 10, forward: client encrypts, server computes and re-randomises, client decrypts. The peer is
``ckks_vector.mm`` on one sample at a time (N = 4096, [40, 20, 40], scale 2^20, its Galois keys made beforehand), a few
samples of it timed and multiplied up to the batch; both are timed in turn, medians. Training: digits (4 clients, MLP
64-64-10) and synthetic series (3 clients, 256 activations), the same seeds in plain split learning, over ciphertexts
and over secret shares (three parties as threads of this process); rounds of the modes take turns, medians. Attacks:
with what the server, or one of the servers, holds. One thread; ratios carry over to other machines, times do not.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
import tenseal as ts
import torch
from _harness import command_line, write_figures
from threadpoolctl import threadpool_limits
from torch import nn

from securefl.ckks.linear import LinearClient, LinearLayer, LinearServer
from securefl.ckks.params import parameter_set
from securefl.cli.output import bytes_text, console, print_table
from securefl.fl.config import parse
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree
from securefl.split.attacks import activations_from_gradients
from securefl.split.encrypted import CIPHERTEXTS, EncryptedMode
from securefl.split.leakage import correlation, leakage_of
from securefl.split.runner import default_cut, settings_of, workload_of
from securefl.split.shared import SharedMode
from securefl.split.shared_view import server_view
from securefl.split.training import SplitRound, SplitTraining

FEATURES, OUTPUTS = 256, 10
#: One run alone ends half a point higher or lower, plain or protected.
SEEDS = 3


def peer(samples: int) -> tuple[Any, np.ndarray]:
    """A function that runs ``samples`` samples one by one, and the greatest error it makes."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    context.global_scale = 2.0**20
    context.generate_galois_keys()
    rng = np.random.default_rng(0)
    a, w = rng.uniform(-1, 1, (samples, FEATURES)), rng.uniform(-0.1, 0.1, (FEATURES, OUTPUTS))

    def run() -> np.ndarray:
        return np.array([ts.ckks_vector(context, row.tolist()).mm(w.tolist()).decrypt() for row in a])

    return run, a @ w


def layer_of(name: str, batch: int) -> tuple[LinearLayer, Any]:
    parameters, *bits = CIPHERTEXTS[name]
    layer = LinearLayer(parameter_set(parameters), FEATURES, OUTPUTS, batch, *bits)
    client = LinearClient(layer)
    server = LinearServer(layer, client.public_key())
    rng = np.random.default_rng(batch)
    a = rng.integers(-layer.activation_limit, layer.activation_limit + 1, (batch, FEATURES))
    w = rng.integers(-layer.weight_limit, layer.weight_limit + 1, (OUTPUTS, FEATURES))
    dz = rng.integers(-layer.gradient_limit, layer.gradient_limit + 1, (batch, OUTPUTS))
    zero = np.zeros(OUTPUTS, dtype=np.int64)

    def run() -> dict[str, Any]:
        times = [perf_counter()]
        up = client.encrypt_activations(a)
        times.append(perf_counter())
        down = server.forward(up, w, zero, batch)
        times.append(perf_counter())
        z = client.decrypt_outputs(down, batch)
        times.append(perf_counter())
        back_up = client.encrypt_gradient(dz)
        back_down = server.backward(back_up, w, batch)
        da = client.decrypt_input_gradient(back_down, batch)
        times.append(perf_counter())
        exact = bool(np.array_equal(z, a @ w.T) and np.array_equal(da, dz @ w))
        sizes = len(up), len(down), len(back_up), len(back_down)
        return {"seconds": np.diff(times), "sizes": sizes, "exact": exact}

    return layer, run


def layers(quick: bool) -> list[dict[str, Any]]:
    samples, repeats = (1, 3) if quick else (4, 5)
    theirs, expected = peer(samples)
    error = float(np.abs(theirs() - expected).max())
    rows = []
    for name in CIPHERTEXTS:
        for batch in (32, 512, 1024):
            layer, ours = layer_of(name, batch)
            ours()
            seconds, peers, result = [], [], {}
            for _ in range(repeats):
                result = ours()
                seconds.append(result["seconds"])
                start = perf_counter()
                theirs()
                peers.append((perf_counter() - start) * batch / samples)
            encrypt, serve, decrypt, backward = np.median(seconds, axis=0)
            forward = median(float(each[:3].sum()) for each in seconds)
            up, down, back_up, back_down = result["sizes"]
            rows.append(
                {
                    "ciphertexts": name,
                    "batch": batch,
                    "client_encrypt": float(encrypt),
                    "server": float(serve),
                    "client_decrypt": float(decrypt),
                    "forward": forward,
                    "backward": float(backward),
                    "peer_forward": median(peers),
                    "ratio": median(peers) / forward,
                    "up": up,
                    "down": down,
                    "backward_up": back_up,
                    "backward_down": back_down,
                    "exact": result["exact"],
                    "peer_error": error,
                    "weight_distance": layer.weight_distance,
                }
            )
    return rows


def training_of(series: bool, protect: str, rounds: int, ciphertexts: str, seed: int) -> tuple[SplitTraining, Dataset]:
    split: dict[str, Any] = {"protect": protect, "series": series}
    values: dict[str, Any] = {
        "data": {"clients": 3 if series else 4, "partition": "iid", "seed": seed},
        "training": {"rounds": rounds, "batch_size": 32, "learning_rate": 0.1 if series else 0.05},
        "protection": {"suite": "x25519"},
        "split": split if protect != "ckks" else {**split, "ciphertexts": ciphertexts},
    }
    config = parse(values)
    assert config.split is not None
    seeds = SeedTree(seed)
    model, clients, test = workload_of(config, config.split, seeds)
    parts = default_cut(model, None, None, labels_at_server=False)
    settings = settings_of(config, config.split)
    return SplitTraining(parts, clients, test, settings, seeds.child("split"), suite="x25519"), test


def row_of(
    run: SplitTraining, test: Dataset, records: list[SplitRound], protect: str, ciphertexts: str, plain: float
) -> dict[str, Any]:
    """``plain``: median seconds of the plain run's epochs."""
    figures = leakage_of(*run.server_views(test), test, SeedTree(0).child("leakage"))
    last, seconds = records[-1], median(record.seconds for record in records)
    return {
        "dataset": test.name,
        "protect": protect if protect != "ckks" else f"ckks, {ciphertexts}",
        "accuracy": fmean(record.accuracy for record in records[-3:]),
        "final_accuracy": last.accuracy,
        "epoch_seconds": seconds,
        "epoch_ratio": seconds / plain,
        "up": last.up,
        "down": last.down,
        "sum_bytes": last.sum_bytes,
        "between": last.between,
        "reconstruction": figures.reconstruction,
        "distance_correlation": figures.distance_correlation,
        "label_auc": figures.label_auc,
    }


def trainings(quick: bool) -> list[dict[str, Any]]:
    rows = []
    modes = [("plain", ""), ("shared", ""), ("ckks", "compact"), ("ckks", "wide")]
    for series in (False, True):
        rounds = 1 if quick else (8 if series else 6)
        found = [trained(series, rounds, modes[: 3 if quick else None], seed) for seed in range(1 if quick else SEEDS)]
        for first, *others in zip(*found, strict=True):
            accuracies = [first["accuracy"], *(other["accuracy"] for other in others)]
            rows.append({**first, "accuracy": fmean(accuracies), "accuracies": accuracies})
    return rows


def trained(series: bool, rounds: int, modes: list[tuple[str, str]], seed: int) -> list[dict[str, Any]]:
    """One run of each mode from the same seed, round by round in turns."""
    with ExitStack() as opened:
        runs = {mode: training_of(series, mode[0], rounds, mode[1], seed) for mode in modes}
        for run, _ in runs.values():
            opened.enter_context(run)
        records: dict[tuple[str, str], list[SplitRound]] = {mode: [] for mode in runs}
        for each in zip(*(run.rounds() for run, _ in runs.values()), strict=True):
            for mode, record in zip(runs, each, strict=True):
                records[mode].append(record)
        plain = median(record.seconds for record in records["plain", ""])
        return [row_of(*runs[mode], records[mode], *mode, plain) for mode in runs]


def attack(batch: int = 8, clients: int = 4) -> dict[str, float]:
    """A from dz and dW: in the clear, and with what our server holds (ciphertexts of dz, the sum of all dW)."""
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    linear = nn.Linear(FEATURES, OUTPUTS)
    mode = EncryptedMode.of("wide", 8.0, linear, 32)
    client, server = mode.client(), mode.server()
    server.setup(client.setup())
    worst, guesses, truths = 0.0, [], []
    for _ in range(20):
        activations = np.maximum(rng.normal(size=(clients, batch, FEATURES)), 0).astype(np.float32)
        labels = rng.integers(0, OUTPUTS, (clients, batch))
        with torch.no_grad():
            p = torch.softmax(linear(torch.from_numpy(activations)), dim=2).numpy()
        dz = (p - np.eye(OUTPUTS)[labels]).astype(np.float32)
        own = dz[0].T @ activations[0]
        worst = max(worst, float(np.abs(activations_from_gradients(dz[0], own) - activations[0]).max()))
        total = sum(dz[i].T @ activations[i] for i in range(clients))
        seen = server.gradient_view(client.gradient(dz[0]), batch)
        guess = activations_from_gradients(seen, total)
        guesses.append(guess / np.linalg.norm(guess, axis=1, keepdims=True))
        truths.append(activations[0])
    truth = np.concatenate(truths)
    return {
        "batch": batch,
        "clear_error": worst,
        "ours_correlation": correlation(np.concatenate(guesses), truth, truth.mean(axis=0)),
    }


def attack_on_shares(batch: int = 8) -> float:
    """The same with one server's share of dz and of dW, the larger correlation of both servers'."""
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    linear = nn.Linear(FEATURES, OUTPUTS)
    shapes = ((FEATURES,), (OUTPUTS,))
    mode = SharedMode.of(
        linear, shapes, activation_range=8.0, gradient_range=1.0, max_batch=batch, momentum=0.0, clients=1
    )
    found = []
    for server in (0, 1):
        guesses, truths = [], []
        for _ in range(20):
            activations = np.maximum(rng.normal(size=(batch, FEATURES)), 0).astype(np.float32)
            with torch.no_grad():
                p = torch.softmax(linear(torch.from_numpy(activations)), dim=1).numpy()
            dz = (p - np.eye(OUTPUTS)[rng.integers(0, OUTPUTS, batch)]).astype(np.float32)
            view = server_view(mode, activations, dz, server)
            guess = activations_from_gradients(view.gradients[:, :OUTPUTS], view.weight_gradients["weight"].T)
            guesses.append(guess / np.linalg.norm(guess, axis=1, keepdims=True))
            truths.append(activations)
        truth = np.concatenate(truths)
        found.append(abs(correlation(np.concatenate(guesses), truth, truth.mean(axis=0))))
    return max(found)


def main() -> None:
    arguments = command_line(__doc__)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        linear, trained, broken = layers(arguments.quick), trainings(arguments.quick), attack()
        broken["shared_correlation"] = attack_on_shares()
    report = {"layer": linear, "training": trained, "pinv": broken}
    write_figures(report, arguments.json)
    if arguments.json == "-":
        return
    ms = "{:.0f}".format
    print_table(
        f"linear layer {FEATURES} to {OUTPUTS}, ms per batch",
        ("ciphertexts", "batch", "encrypt", "server", "decrypt", "forward", "mm per sample", "ratio", "backward"),
        [
            (
                row["ciphertexts"],
                row["batch"],
                *(ms(1e3 * row[key]) for key in ("client_encrypt", "server", "client_decrypt", "forward")),
                ms(1e3 * row["peer_forward"]),
                f"{row['ratio']:.0f}x",
                ms(1e3 * row["backward"]),
            )
            for row in linear
        ],
    )
    print_table(
        "bytes per batch; results equal to the integer products; distance per coefficient of an answer",
        ("ciphertexts", "batch", "up", "down", "backward up", "backward down", "exact", "distance"),
        [
            (
                row["ciphertexts"],
                row["batch"],
                *(bytes_text(row[key]) for key in ("up", "down", "backward_up", "backward_down")),
                row["exact"],
                f"2^{np.log2(row['weight_distance']):.1f}",
            )
            for row in linear
        ],
    )
    print_table(
        "training: accuracy, mean of the last three rounds and all seeds; bytes per example of clients, sums, parties",
        ("data", "protect", "accuracy", "s/epoch", "x plain", "up", "down", "sums", "parties"),
        [
            (
                row["dataset"],
                row["protect"],
                f"{row['accuracy']:.4f}",
                f"{row['epoch_seconds']:.2f}",
                f"{row['epoch_ratio']:.1f}",
                *(bytes_text(row[key]) for key in ("up", "down", "sum_bytes", "between")),
            )
            for row in trained
        ],
    )
    print_table(
        "what the view of the server, or of one server, gives away",
        ("data", "protect", "inputs rebuilt", "distance corr.", "label AUC"),
        [
            (
                row["dataset"],
                row["protect"],
                *(f"{row[key]:.3f}" for key in ("reconstruction", "distance_correlation", "label_auc")),
            )
            for row in trained
        ],
    )
    console.print(
        f"a = pinv(dz') dW, batch {broken['batch']}: greatest error {broken['clear_error']:.2g} from gradients in the "
        f"clear; correlation {broken['ours_correlation']:.3f} from what our server holds, "
        f"{broken['shared_correlation']:.3f} from what one of two servers holds",
        markup=False,
    )


if __name__ == "__main__":
    main()
