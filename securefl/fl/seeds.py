"""The seed tree of a simulated run: one root integer, one independent seed per (purpose, round, client).

Only for what may be reproduced: splitting data, initialising models, local training, stochastic rounding in a
simulation, simulated dropouts. **Never for masks, keys, shares or differential-privacy noise**: whoever knows the root
knows every seed below it, so those come from the operating system (``securefl.primitives.entropy``).

A seed depends on its path alone, not on what was drawn before: results do not depend on the order in which clients are
trained, and a resumed run continues with the very seeds of an uninterrupted one.

Derivation (HMAC-SHA-256 is a pseudo-random function; HKDF-Expand is RFC 5869, section 2.3)::

    node(root)          = SHA-256("securefl seed tree v1" || decimal(root))
    node(parent, label) = HMAC(node(parent), 0x00 || type || length || label)    type: "s" text, "i" integer
    output(purpose)     = HKDF-Expand(HMAC(node, 0x01 || purpose), "", n)
"""

from __future__ import annotations

import hashlib
import hmac
from builtins import bytes as Bytes  # inside the class, ``bytes`` is the method
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from securefl.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

__all__ = ["SeedTree"]

_DIGEST_SIZE = 32
_MAX_OUTPUT = 255 * _DIGEST_SIZE  # HKDF-Expand counts blocks in one byte


class SeedTree:
    """A node of the tree.

    ``root``: a non-negative integer, what users call "the seed". ``tree.child("a", 1)`` is
    ``tree.child("a").child(1)``; distinct paths give independent seeds, also ``child("1")`` and ``child(1)``.
    Raises :class:`~securefl.errors.ConfigurationError` for a root that is not a non-negative integer.
    """

    __slots__ = ("_node",)

    def __init__(self, root: int) -> None:
        if type(root) is not int or root < 0:
            raise ConfigurationError(f"a seed is a non-negative integer, not {root!r}")
        self._node = hashlib.sha256(b"securefl seed tree v1" + str(root).encode("ascii")).digest()

    def child(self, *labels: str | int) -> SeedTree:
        """The node below this one along ``labels`` (at least one). Raises ConfigurationError for other label types."""
        if not labels:
            raise ConfigurationError("a child needs at least one label")
        node = self._node
        for label in labels:
            if type(label) not in (str, int):
                raise ConfigurationError(f"labels of a seed are text or integers, not {label!r}")
            node = _below(node, label)
        tree = object.__new__(SeedTree)
        tree._node = node
        return tree

    def bytes(self, n: int = 32) -> Bytes:
        """``n`` bytes, 1 <= n <= 8160; a shorter request is a prefix of a longer one."""
        return self._expand(b"bytes", n)

    def integer(self, bits: int) -> int:
        """An integer in [0, 2**bits), 1 <= bits <= 65280."""
        return int.from_bytes(self._expand(b"integer", -(-bits // 8)), "big") >> (-bits % 8)

    def numpy(self) -> np.random.Generator:
        """A fresh PCG64 generator. Its stream is fixed for one numpy version (NEP 19), not across versions."""
        drawn = self._expand(b"numpy", 32)
        # The words of the integer, which numpy would cut off one by one; a shorter integer has fewer.
        words = np.frombuffer(drawn[::-1], dtype="<u4")
        return np.random.Generator(np.random.PCG64(words if words[-1] else int.from_bytes(drawn, "big")))

    def torch(self) -> torch.Generator:
        """A fresh CPU generator. Needs torch."""
        import torch

        return torch.Generator().manual_seed(self.torch_seed())

    def torch_seed(self) -> int:
        """What :meth:`torch` is seeded with: 63 bits (torch's Mersenne Twister uses the low 32 of them)."""
        return int.from_bytes(self._expand(b"torch", 8), "big") >> 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeedTree) and self._node == other._node

    def __hash__(self) -> int:
        return hash(self._node)

    def __repr__(self) -> str:
        return f"<SeedTree {self._node[:4].hex()}>"

    def _expand(self, purpose: Bytes, n: int) -> Bytes:
        if not 1 <= n <= _MAX_OUTPUT:
            raise ConfigurationError(f"a seed yields 1 to {_MAX_OUTPUT} bytes, not {n}")
        # A key of its own per purpose: bytes() of a node tells nothing about its numpy() or about its children.
        key = hmac.digest(self._node, b"\x01" + purpose, "sha256")
        output = block = b""
        for counter in range(1, -(-n // _DIGEST_SIZE) + 1):
            block = hmac.digest(key, block + bytes((counter,)), "sha256")
            output += block
        return output[:n]


# Half of a path, such as ("client", 7, "round"), is the same in every round and purpose.
@lru_cache(maxsize=1 << 14)
def _below(node: bytes, label: str | int) -> bytes:
    return hmac.digest(node, b"\x00" + _encode(label), "sha256")


def _encode(label: str | int) -> bytes:
    """Injective: the type, the length, the text."""
    text = str(label).encode("utf-8")
    return (b"s" if isinstance(label, str) else b"i") + len(text).to_bytes(8, "big") + text
