"""One protected sum of plain arrays, with a client that drops out. Needs the base install only.

python3 examples/01_secure_sum.py
"""

import numpy as np

import securefl

CLIP_RANGE, VALUE_BITS = 4.0, 16


def main() -> None:
    inputs = {"a": np.linspace(-1, 1, 5), "b": np.full(5, 2.0), "c": np.ones(5), "d": np.full(5, 0.25)}

    # c shares its keys with the others and is never heard of again. Three clients must be left.
    total = securefl.secure_sum(
        inputs, protect="masked", clip_range=CLIP_RANGE, value_bits=VALUE_BITS, threshold=3, dropped={"c"}
    )
    wanted = sum(inputs[name] for name in total.survivors)
    print("survivors:  ", ", ".join(total.survivors))
    print("masked sum: ", np.round(total.sum, 4))
    print("numpy's sum:", np.round(wanted, 4))

    # The only error is the rounding to the grid: below one step per value and client.
    step = CLIP_RANGE / (2 ** (VALUE_BITS - 1) - 1)
    assert total.survivors == ("a", "b", "d")
    assert np.abs(total.sum - wanted).max() < len(total.survivors) * step

    # With the rounding fixed by a seed, the plain sum has the same integers: the masks leave nothing behind.
    seed = bytes(range(32))
    masked, plain = (
        securefl.secure_sum(inputs, protect=name, clip_range=CLIP_RANGE, seed=seed, dropped={"c"}, threshold=3)
        for name in ("masked", "plain")
    )
    assert (masked.integers == plain.integers).all()
    print("masked and plain give the same integers:", masked.integers)

    print(f"bytes sent by a: {total.upload_bytes['a']}, of which the vector: {total.vector_bytes['a']}")

    # What cannot be summed is refused before anything is masked.
    try:
        securefl.secure_sum({**inputs, "a": np.array([1.0, np.nan, 0, 0, 0])}, clip_range=CLIP_RANGE)
    except securefl.errors.InvalidInputError as error:
        print("refused:", error)
    else:
        raise AssertionError("a NaN was summed")

    # Too few survivors open nothing.
    try:
        securefl.secure_sum(inputs, clip_range=CLIP_RANGE, threshold=3, dropped={"c", "d"})
    except securefl.errors.TooFewClientsError as error:
        print("refused:", error)
    else:
        raise AssertionError("two clients were enough for a threshold of three")


if __name__ == "__main__":
    main()
