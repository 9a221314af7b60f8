"""A model nobody sees classifies images nobody sees: three processes, and what the servers held."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from securefl import mpc
from securefl.errors import ConfigurationError


class Classifier(nn.Module):
    """A module of your own: torch.fx finds what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(4 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.features(images), 1))


def main() -> None:
    torch.manual_seed(0)
    net = Classifier().eval()
    images = torch.rand(32, 1, 8, 8)
    with mpc.local_cluster() as servers:
        model = servers.share(net, limit=1.0)
        logits = model(servers.share(images)).reveal()
        print("cost:", servers.cost())

        try:
            servers.share(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
        except ConfigurationError as error:
            print("refused:", error)

    error = float((logits - net(images).detach()).abs().max())
    print(f"largest difference from the model in the clear: {error:.1e}")
    assert error < 2e-4

    # The same image shared twice gives unrelated shares.
    def program(party: mpc.Party) -> np.ndarray | None:
        from securefl.mpc.operations import share

        image = images[0].double().numpy()
        first, second = (share(party, 0, image.shape, image if party.me == 0 else None) for _ in range(2))
        return None if party.is_helper else np.stack((first.words, second.words))

    zero, one, _ = mpc.run_parties(program)
    assert zero is not None
    assert one is not None
    assert not (zero[0] == zero[1]).any()
    np.testing.assert_array_equal(zero[0] + one[0], zero[1] + one[1])
    print("two sharings of one image: no word in common, the same sum")


if __name__ == "__main__":
    main()
