"""Owners train one model on pooled data that nobody sees: digits on shares, beside the same in the clear."""

from __future__ import annotations

import torch
from torch import nn

from securefl import mpc
from securefl.fl.data import load
from securefl.fl.seeds import SeedTree

EPOCHS, BATCH = 1, 64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main() -> None:
    train, test = load("digits", SeedTree(0))
    x, y = torch.from_numpy(train.inputs) / 8, torch.from_numpy(train.targets)
    net, plain = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)

    # Five percent of the batches are not used but recomputed, to catch a helper that deals wrongly.
    with mpc.local_cluster(audit=0.05) as servers:
        model = servers.share(net, limit=1.0)
        servers.cost()
        for epoch in range(EPOCHS):
            for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(BATCH):
                images, labels = servers.share(x[rows]), servers.share(y[rows])  # each by its owner
                model.train_step(images, labels, loss="cross_entropy", lr=0.5)
                optimizer.zero_grad()
                nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
                optimizer.step()
            print(f"epoch {epoch + 1}: {servers.cost()}")
        net.load_state_dict(model.reveal_state_dict())
        print(f"{servers.audited} batches were audited")

    def accuracy(module: nn.Module) -> float:
        return float((module(torch.from_numpy(test.inputs) / 8).argmax(1).numpy() == test.targets).mean())

    shared, clear = accuracy(net), accuracy(plain)
    print(f"accuracy: {shared:.4f} trained on shares, {clear:.4f} in the clear")
    assert abs(shared - clear) < 0.02


if __name__ == "__main__":
    main()
