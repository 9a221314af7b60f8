"""The three parties as threads of one process: for tests, demonstrations and work that needs no separation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from securefl.mpc.channel import PARTIES, memory_channels
from securefl.mpc.operations import PARTY_KINDS
from securefl.mpc.party import Party, join
from securefl.primitives.entropy import Entropy

__all__ = ["run_parties"]

T = TypeVar("T")


def run_parties(
    program: Callable[[Party], T],
    session: bytes = b"threads",
    entropy: Entropy | None = None,
    deadline: float = 60.0,
    engine: str = "dealer",
) -> tuple[T, T, T]:
    """Run a party program at all three parties, with fresh secrets and links in memory; their three results.

    ``engine``: "dealer" or "replicated" (:mod:`securefl.mpc.operations`).

    When parties fail, the error of the first that did is raised; the others end because its links close.
    """
    channels = memory_channels(deadline=deadline)
    errors: list[BaseException] = []

    def run(me: int) -> T:
        try:
            party = join(channels[me], session, entropy, PARTY_KINDS[engine])
            party.begin(1)
            return program(party)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            channels[me].close()

    with ThreadPoolExecutor(PARTIES, thread_name_prefix="party") as pool:
        futures = [pool.submit(run, me) for me in range(PARTIES)]
    if errors:
        raise errors[0]
    zero, one, two = (future.result() for future in futures)
    return zero, one, two
