"""The helper is caught when it deals anything else, and only then."""

import numpy as np
import pytest
import torch
from torch import nn

from securefl.cluster import local
from securefl.cluster.local import local_cluster
from securefl.cluster.tensors import SharedTensor
from securefl.errors import ConfigurationError, DecodeError, FaultyPartyError
from securefl.mpc.channel import HELPER, MemoryChannel
from securefl.mpc.fixed import encode
from securefl.mpc.handover import hand_out
from securefl.mpc.service import encode_command
from securefl.primitives.entropy import SystemEntropy


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_an_honest_helper_passes_and_results_are_right(rate: float) -> None:
    model, x = net(), torch.rand(6, 5)
    with local_cluster(parties="threads", deadline=20, audit=rate) as servers:
        shared = servers.share(model)
        for _ in range(4):
            assert (shared(servers.share(x)).reveal() - model(x)).abs().max() < 2e-4
        for _ in range(3):
            shared.train_step(servers.share(x), servers.share(torch.tensor([0, 1, 2, 0, 1, 2])), lr=0.5, momentum=0.5)
        assert all(value.isfinite().all() for value in shared.reveal_state_dict().values())
        assert servers.audited == 7 if rate == 1 else servers.audited >= 0


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the helper change the first byte of its message number ``lying[0]`` after the secrets."""
    turn = [-1]
    made = local.memory_channels

    def channels(*args, **kwargs):
        result = made(*args, **kwargs)
        helper = result[HELPER]
        if len(result) == 3:
            count = [-2]  # two secrets

            def send(to: int, *buffers) -> None:
                message = bytearray().join(buffers)
                if count[0] == turn[0]:
                    message[0] ^= 1
                count[0] += 1
                MemoryChannel.send(helper, to, message)

            helper.send = send
        return result

    monkeypatch.setattr(local, "memory_channels", channels)
    return turn


@pytest.mark.parametrize("message", range(4))
def test_one_changed_bit_is_found_and_the_helper_named(lying: list[int], message: int) -> None:
    lying[0] = message
    with local_cluster(parties="threads", deadline=20, audit=1.0) as servers:
        shared = servers.share(net())
        y = shared(servers.share(torch.rand(6, 5)))
        with pytest.raises(FaultyPartyError, match="dealt something else") as caught:
            y.reveal()
        assert caught.value.party == HELPER


def test_masks_of_before_are_not_used_in_a_fresh_batch() -> None:
    """Neither what a truncation of an earlier batch opened, nor a key that a client gave the helper."""
    values = np.array([1.5, -2.0, 0.25])
    with local_cluster(parties="threads", deadline=20, audit=1.0) as servers:
        x = servers.share(values)
        square = x * x
        assert np.abs((square * square).numpy() - values**4).max() < 1e-3
        number = servers._number()
        payloads = hand_out("dealer", encode(values), SystemEntropy(), opened=True)
        servers._tell("put", payloads, id=number, shape=[3], fraction=16, opened=True)
        assert np.abs((SharedTensor(servers, number) * x).numpy() - values**2).max() < 1e-3
        assert servers.audited == 3


def test_a_batch_with_older_masks_is_not_audited() -> None:
    """Its keys would open the masks of weights."""
    with local_cluster(parties="threads", deadline=20) as servers:
        shared = servers.share(net())
        x = servers.share(torch.rand(1, 5))
        command = encode_command("apply", batch=1, fresh=False, model=shared.number, input=x.number, output=999)
        servers._tell("audit", command=command.decode())
        with pytest.raises(DecodeError, match="servers audit fresh batches"):
            servers.cost()


def test_a_share_of_audits_is_a_share() -> None:
    with pytest.raises(ConfigurationError, match="0 to 1"):
        local_cluster(parties="threads", audit=1.5)
