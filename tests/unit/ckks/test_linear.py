from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tenseal")

from securefl.ckks.linear import LinearClient, LinearLayer, LinearServer
from securefl.ckks.linear.coding import expand, read_answer
from securefl.ckks.params import parameter_set
from securefl.errors import AuthenticationError, ConfigurationError, DecodeError, InvalidInputError
from securefl.primitives.prg import KEY_BYTES

WIDE, COMPACT = parameter_set("n8192-q112"), parameter_set("n4096-q60")
BITS = {WIDE.name: (12, 14, 16), COMPACT.name: (9, 10, 11)}


@functools.cache
def _client(name: str) -> LinearClient:
    """One key for the module: what differs between tests is the layer."""
    return LinearClient(LinearLayer(parameter_set(name), 1, 1, 1, *BITS[name]))


def _pair(layer: LinearLayer) -> tuple[LinearClient, LinearServer]:
    shared = _client(layer.parameters.name)
    client = LinearClient.__new__(LinearClient)
    client.__dict__.update(shared.__dict__ | {"layer": layer})
    return client, LinearServer(layer, client.public_key())


def _draw(rng: np.random.Generator, limit: int, shape: tuple[int, int], *, extreme: bool) -> np.ndarray:
    return limit * rng.choice([-1, 1], shape) if extreme else rng.integers(-limit, limit + 1, shape)


@settings(max_examples=10, deadline=None)
@given(
    features=st.integers(1, 300),
    outputs=st.integers(1, 12),
    batch=st.integers(1, 70),
    room=st.integers(0, 40),
    extreme=st.booleans(),
    seed=st.integers(0, 999),
)
@pytest.mark.parametrize("parameters", [WIDE, COMPACT], ids=lambda p: p.name)
def test_both_directions_are_exact(
    parameters: object, features: int, outputs: int, batch: int, room: int, extreme: bool, seed: int
) -> None:
    """Equal to the integer product, also when every integer is as large as it may be."""
    layer = LinearLayer(parameters, features, outputs, batch + room, *BITS[parameters.name])  # type: ignore[arg-type, attr-defined]
    client, server = _pair(layer)
    rng = np.random.default_rng(seed)
    a = _draw(rng, layer.activation_limit, (batch, features), extreme=extreme)
    w = _draw(rng, layer.weight_limit, (outputs, features), extreme=extreme)
    dz = _draw(rng, layer.gradient_limit, (batch, outputs), extreme=extreme)
    bias = rng.integers(-layer.result_limit // 2 + 1, layer.result_limit // 2, outputs)
    up = client.encrypt_activations(a)
    assert len(up) == layer.encrypted_bytes(layer.polynomials)
    down = server.forward(up, w, bias, batch)
    assert len(down) == layer.answer_bytes(layer.output_answers, outputs * batch)
    assert np.array_equal(client.decrypt_outputs(down, batch), a @ w.T + bias)
    up = client.encrypt_gradient(dz)
    assert len(up) == layer.encrypted_bytes(layer.gradient_polynomials)
    down = server.backward(up, w, batch)
    assert len(down) == layer.answer_bytes(layer.gradient_answers, features * batch)
    assert np.array_equal(client.decrypt_input_gradient(down, batch), dz @ w)


def test_256_features_of_1024_examples_fit_the_promised_bytes() -> None:
    for batch in (32, 512, 1024):
        layer = LinearLayer(WIDE, 256, 10, batch, *BITS[WIDE.name])
        assert layer.encrypted_bytes(layer.polynomials) <= 4_300_000
        assert layer.weight_distance < 2.0**-40


@pytest.fixture(scope="module")
def session() -> tuple[LinearLayer, LinearClient, LinearServer, np.ndarray, np.ndarray]:
    layer = LinearLayer(COMPACT, 24, 4, 32, *BITS[COMPACT.name])
    client, server = _pair(layer)
    rng = np.random.default_rng(5)
    a = _draw(rng, layer.activation_limit, (20, 24), extreme=False)
    w = _draw(rng, layer.weight_limit, (4, 24), extreme=False)
    return layer, client, server, a, w


ZERO = np.zeros(4, dtype=np.int64)


def test_a_wrong_key_is_a_named_error(session: tuple) -> None:  # type: ignore[type-arg]
    layer, client, server, a, w = session
    other = LinearClient(layer)
    answer = server.forward(client.encrypt_activations(a), w, ZERO, 20)
    with pytest.raises(AuthenticationError, match="does not decrypt to the lattice"):
        other.decrypt_outputs(answer, 20)
    with pytest.raises(AuthenticationError):  # re-randomised for a key that did not encrypt
        client.decrypt_outputs(
            LinearServer(layer, other.public_key()).forward(client.encrypt_activations(a), w, ZERO, 20), 20
        )


def test_a_damaged_ciphertext_is_a_named_error(session: tuple) -> None:  # type: ignore[type-arg]
    _, client, server, a, w = session
    up = bytearray(client.encrypt_activations(a))
    up[3] ^= 1  # of the seed
    with pytest.raises(AuthenticationError):
        client.decrypt_outputs(server.forward(bytes(up), w, ZERO, 20), 20)


@pytest.mark.parametrize("change", [-1, 1])
def test_other_sizes_are_refused(session: tuple, change: int) -> None:  # type: ignore[type-arg]
    layer, client, server, a, w = session
    up = client.encrypt_activations(a)
    down = server.forward(up, w, ZERO, 20)
    for cut in (lambda b: b[:-1] if change < 0 else b + b"\0",):
        with pytest.raises(DecodeError):
            server.forward(cut(up), w, ZERO, 20)
        with pytest.raises(DecodeError):
            client.decrypt_outputs(cut(down), 20)
        with pytest.raises(DecodeError):
            LinearServer(layer, cut(client.public_key()))


def test_residues_beyond_the_prime_are_refused(session: tuple) -> None:  # type: ignore[type-arg]
    _, client, server, a, w = session
    up = bytearray(client.encrypt_activations(a))
    up[KEY_BYTES : KEY_BYTES + 8] = b"\xff" * 8
    with pytest.raises(DecodeError, match="not below its prime"):
        server.forward(bytes(up), w, ZERO, 20)


def test_what_lies_beyond_the_declared_range_is_refused(session: tuple) -> None:  # type: ignore[type-arg]
    layer, client, server, a, w = session
    high = a.copy()
    high[3, 3] = layer.activation_limit + 1
    with pytest.raises(InvalidInputError, match="declare a larger range"):
        client.encrypt_activations(high)
    with pytest.raises(InvalidInputError, match="larger than the packing of 32"):
        client.encrypt_activations(np.zeros((33, 24), dtype=np.int64))
    with pytest.raises(InvalidInputError):
        server.forward(client.encrypt_activations(a), w + layer.weight_limit + 1, ZERO, 20)
    with pytest.raises(InvalidInputError, match="bias"):
        server.forward(client.encrypt_activations(a), w, ZERO + layer.result_limit, 20)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_batch": 5000}, "does not fit the 4096 coefficients"),
        ({"activation_bits": 20, "weight_bits": 20}, "beside the noise"),
        ({"weight_bits": 21}, "within 2 to 20"),
        ({"features": 0}, "at least 1"),
    ],
)
def test_layers_that_cannot_be(changes: dict[str, int], sentence: str) -> None:
    layer = LinearLayer(COMPACT, 24, 4, 32, *BITS[COMPACT.name])
    with pytest.raises(ConfigurationError, match=sentence):
        replace(layer, **changes)


def test_every_ciphertext_and_every_answer_is_fresh(session: tuple) -> None:  # type: ignore[type-arg]
    _, client, server, a, w = session
    first, second = client.encrypt_activations(a), client.encrypt_activations(a)
    assert first[:KEY_BYTES] != second[:KEY_BYTES]
    down = [server.forward(first, w, ZERO, 20) for _ in range(2)]
    same = np.mean(np.frombuffer(down[0], np.uint8) == np.frombuffer(down[1], np.uint8))
    assert same < 0.02  # 1/256 by chance


def test_ciphertexts_look_uniform(session: tuple) -> None:  # type: ignore[type-arg]
    """A sanity check, no proof: c0 of equal activations has no visible structure."""
    layer, client, _, a, _ = session
    server = LinearServer(layer, client.public_key())
    view = np.concatenate([server.view(client.encrypt_activations(a * 0), 20).ravel() for _ in range(10)])
    histogram, _ = np.histogram(view, bins=16, range=(-0.5, 0.5))
    expected = view.size / 16
    assert ((histogram - expected) ** 2 / expected).sum() < 44  # chi-square, 15 degrees: 1e-4


# -- what an answer tells about W


def _solve(matrix: list[list[int]], right: list[int], q: int) -> list[int]:
    """Gaussian elimination modulo a prime."""
    n = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(n):
        pivot = next(at for at in range(column, n) if rows[at][column] % q)
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, q)
        rows[column] = [value * inverse % q for value in rows[column]]
        for at in range(n):
            if at != column and rows[at][column]:
                factor = rows[at][column]
                rows[at] = [(x - factor * y) % q for x, y in zip(rows[at], rows[column], strict=True)]
    return [row[n] for row in rows]


def _weights_from_c1(layer: LinearLayer, up: bytes, down: bytes) -> np.ndarray:
    """The client's attack: c1 of the answer is W(X) times the c1 it sent, so one division in the ring gives W."""
    q, n = layer.parameters.primes[0], layer.blocks
    sent = expand(up[:KEY_BYTES], 0, layer.parameters.degree, q).reshape(n, layer.stride)[:, 0]
    answer, _ = read_answer(layer, down, layer.output_answers, 4 * 20)
    got = answer[0].reshape(n, layer.stride)[:, 0]
    matrix = [[int(sent[k - e]) if e <= k else -int(sent[k - e + n]) for e in range(n)] for k in range(n)]
    u = _solve(matrix, [int(value) for value in got], q)
    return np.array([value - q if value > q // 2 else value for value in u], dtype=object)


def test_without_rerandomisation_one_answer_hands_over_all_weights_and_ours_none(
    session: tuple,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[type-arg]
) -> None:
    layer, client, _, a, w = session
    assert layer.output_answers == 1
    assert layer.polynomials == 1
    placed = [(slot * layer.group - f) % layer.blocks for slot in range(4) for f in range(24)]
    signs = [-1 if slot * layer.group < f else 1 for slot in range(4) for f in range(24)]
    server = LinearServer(layer, client.public_key())
    up = client.encrypt_activations(a)
    ours = _weights_from_c1(layer, up, server.forward(up, w, ZERO, 20))[placed] * signs
    zeros = np.zeros((2, 1, layer.parameters.degree), dtype=np.uint64)
    monkeypatch.setattr(server, "_zero", lambda: zeros)
    bare = _weights_from_c1(layer, up, server.forward(up, w, ZERO, 20))[placed] * signs
    assert np.array_equal(bare.reshape(4, 24), w)
    assert not np.any(ours.reshape(4, 24) == w)


def test_flooding_drowns_what_the_client_knows_of_the_noise(session: tuple) -> None:  # type: ignore[type-arg]
    """The distance from the lattice is as of uniform noise of the declared width, whatever W is."""
    layer, client, server, a, w = session
    q, spread = layer.parameters.primes[0], []
    for weights in (w, w * 0):
        answer = server.forward(client.encrypt_activations(a), weights, ZERO, 20)
        c1, c0 = read_answer(layer, answer, 1, 80)
        blocks = np.arange(4) * layer.group
        places = (blocks[:, None] * layer.stride + np.arange(20)).reshape(-1)
        value = (client._secret.times(c1[0], q)[places] + c0) % q
        signed = value.astype(np.int64)
        signed = np.where(signed > q // 2, signed - q, signed)
        spread.append((signed + layer.scale // 2) % layer.scale - layer.scale // 2)
    for each in spread:
        assert np.abs(each).max() <= layer.noise_limit
        assert abs(each.std() / (layer.flooding / np.sqrt(3)) - 1) < 0.4
    assert layer.noise_limit < layer.scale // 2
