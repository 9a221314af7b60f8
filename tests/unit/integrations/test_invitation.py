"""Invitations: one encoding, strict decoding, and a digest that every field moves."""

from dataclasses import fields, replace

import pytest

from securefl.encoding.layout import TensorSpec
from securefl.errors import ConfigurationError, DecodeError
from securefl.integrations.invitation import METRICS, Invitation
from securefl.integrations.terms import CompressionTerms, NoiseTerms
from securefl.integrations.vector import VectorCoder

PLAIN = Invitation(
    kind="train",
    protect="masked",
    suite="x25519",
    session=b"run",
    round=3,
    clients=5,
    threshold=3,
    value_bits=16,
    clip_range=0.5,
    clip_norm=0.0,
    max_weight=128,
    weight_key="num-examples",
    layout=(TensorSpec("w", (3, 4), "float32"), TensorSpec("b", (), "float64")),
    metrics=(("loss", 10.0),),
    model_hash=bytes(range(32)),
    arguments_hash=bytes(32),
)
COMPRESSED = replace(
    PLAIN,
    protect="ckks",
    key_model="key_holder",
    compression=CompressionTerms("random_k", 0.1, 3, 3.0, True, 0.9, bytes(range(32)), 0.25, 0.5),
    identities=tuple(bytes([at]) * 32 for at in range(1, 6)),
    helper=bytes([8]) * 32,
    server=bytes([9]) * 32,
)
NOISY = replace(PLAIN, metrics=(), noise=NoiseTerms(1.0, 0.7, 100, 60, 3))


@pytest.mark.parametrize(
    "invitation", [PLAIN, NOISY, COMPRESSED, replace(PLAIN, layout=()), replace(PLAIN, session=b"x" * 64)]
)
def test_what_is_encoded_is_decoded(invitation: Invitation) -> None:
    assert Invitation.decode(invitation.encode()) == invitation


def test_the_layout_that_is_summed_ends_in_the_metrics() -> None:
    assert [spec.name for spec in PLAIN.summed.tensors] == ["w", "b", METRICS]
    assert PLAIN.summed.dimension == 12 + 1 + 1
    assert PLAIN.ids == (1, 2, 3, 4, 5)


OTHER = {
    "kind": "evaluate",
    "protect": "plain",
    "suite": "mlkem768-x25519",
    "session": b"another",
    "round": 4,
    "clients": 6,
    "threshold": 4,
    "value_bits": 17,
    "clip_range": 0.25,
    "clip_norm": 1.0,
    "max_weight": 64,
    "weight_key": "weight",
    "layout": (TensorSpec("w", (4, 3), "float32"), TensorSpec("b", (), "float64")),
    "metrics": (("loss", 5.0),),
    "model_hash": bytes(32),
    "arguments_hash": bytes(range(32)),
    "noise": NoiseTerms(1.0, 0.7, 100, 60, 3),
    "compression": COMPRESSED.compression,
    "key_model": "threshold",
    "flooding": True,
    "identities": COMPRESSED.identities,
    "helper": bytes([8]) * 32,
    "server": bytes([9]) * 32,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Invitation)])
def test_every_field_moves_the_digest(name: str) -> None:
    changed = replace(PLAIN, **{name: OTHER[name]})
    assert changed.digest != PLAIN.digest


def test_every_truncation_and_every_leftover_is_refused() -> None:
    for invitation in (PLAIN, NOISY, COMPRESSED):
        data = invitation.encode()
        for length in range(len(data)):
            with pytest.raises(DecodeError):
                Invitation.decode(data[:length])
        with pytest.raises(DecodeError, match="left over"):
            Invitation.decode(data + b"\0")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": (TensorSpec("w", (1,), "int64"),)}, "not summed"),
        ({"layout": (TensorSpec("w", (2**21, 2**21), "float32"),)}, "values"),
        ({"layout": (TensorSpec("w", (1,), "float32"), TensorSpec("w", (1,), "float32"))}, "twice"),
        ({"layout": (TensorSpec(METRICS, (1,), "float32"),)}, "twice"),
        ({"metrics": (("loss", 1.0), ("loss", 2.0))}, "twice"),
        ({"clip_range": float("nan")}, "finite"),
        ({"metrics": (("loss", 0.0),)}, "above 0"),
        ({"metrics": (("loss", -1.0),)}, "above 0"),
        ({"clients": 2**32 - 1, "threshold": 2**31}, "at most 65536"),
        ({"layout": (), "metrics": ()}, "sum nothing"),
        ({"kind": "x" * 5000}, "at most"),
        ({"identities": (bytes(32),) * 5}, "all different"),
        ({"identities": COMPRESSED.identities[:4]}, "one public key per client"),
        ({"identities": COMPRESSED.identities, "helper": bytes([1]) * 32}, "all different"),
        ({"helper": bytes(31)}, "each has 32"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        Invitation.decode(replace(PLAIN, **changes).encode())


@pytest.mark.parametrize(
    "changes",
    [{"clip_multiple": 1e-300}, {"clip_multiple": 1e300}, {"mean_square": 1e-300}, {"mean_square": 1e300}],
)
def test_scales_that_float32_cannot_carry_are_refused(changes: dict) -> None:
    terms = COMPRESSED.compression
    with pytest.raises(ConfigurationError, match=r"1e\+30|0\.001 to 1000"):
        replace(terms, **changes)
    for name, value in changes.items():
        object.__setattr__(terms := replace(terms), name, value)
    with pytest.raises(DecodeError, match="cannot be"):
        Invitation.decode(replace(COMPRESSED, compression=terms).encode())


@pytest.mark.parametrize("multiplier", [5e-324, 1e-300, 1e300])
def test_noise_that_cannot_be_is_refused_by_name(multiplier: float) -> None:
    proposed = replace(NOISY, noise=replace(NOISY.noise, noise_multiplier=multiplier))
    with pytest.raises(ConfigurationError, match="noise_multiplier"):
        VectorCoder.of(Invitation.decode(proposed.encode()))


def test_other_versions_and_flags_are_refused() -> None:
    data = PLAIN.encode()
    with pytest.raises(DecodeError, match="version 7"):
        Invitation.decode(b"\x07" + data[1:])
    with pytest.raises(DecodeError, match="flag"):
        Invitation.decode(data[:-1] + b"\x02")
