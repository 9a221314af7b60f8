"""What this client agrees to. It comes from the client's own side, never from the server.

A server can ask for anything: one-client rounds, a threshold of one, no protection at all. A client that has a policy
answers such invitations with an error and sends no key, share or value. Two sources: what the application's code
passes, and what the operator of the client writes in the node's configuration (``securefl-minimum-clients=8``) or in a
TOML file that it names (``securefl-policy="policy.toml"``). Where both speak, the higher floor holds and only what
both permit is permitted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from securefl.errors import AuthenticationError, ConfigurationError, TooFewClientsError
from securefl.integrations.carried import needs_helper
from securefl.integrations.invitation import Invitation
from securefl.integrations.once import STATE_KEY
from securefl.integrations.peers import IDENTITY_KEY, KEY_FILE_KEY, PEERS_KEY, Peers

__all__ = ["Policy"]

PREFIX: Final = "securefl-"
FILE_KEY: Final = "securefl-policy"
ROLE_KEY: Final = "securefl-role"
_OTHERS: Final = {FILE_KEY, ROLE_KEY, IDENTITY_KEY, PEERS_KEY, KEY_FILE_KEY, STATE_KEY}
PROTECTED: Final = ("masked", "ckks", "shared")


@dataclass(frozen=True, slots=True)
class Policy:
    """A client's floors and permissions.

    ``minimum_clients``: least size of an invited cohort. ``minimum_survivors``: least number of clients in a sum.
    ``minimum_threshold``: least threshold; a majority of the cohort is asked for besides. ``minimum_noise``: least
    noise multiplier of distributed noise; 0 demands none. ``allow_plain``: answer invitations to an unprotected sum.
    ``allow_unpinned``: take part in ckks and shared sums although the others' public keys come from the server.
    ``allow_unprotected_train``, ``allow_unprotected_evaluate``, ``allow_unprotected_query``: answer messages of that
    type that come without any invitation, as if securefl were not there.
    """

    minimum_clients: int = 3
    minimum_survivors: int = 2
    minimum_threshold: int = 2
    minimum_noise: float = 0.0
    allow_plain: bool = False
    allow_unpinned: bool = False
    allow_unprotected_train: bool = False
    allow_unprotected_evaluate: bool = False
    allow_unprotected_query: bool = False

    def __post_init__(self) -> None:
        for name in ("minimum_clients", "minimum_survivors", "minimum_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 2:
                raise ConfigurationError(f"{name} must be a whole number of at least 2, got {value!r}")
        noise = self.minimum_noise
        if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
            raise ConfigurationError(f"minimum_noise must be a number of at least 0, got {noise!r}")
        for field in fields(self):
            if field.name.startswith("allow_") and not isinstance(getattr(self, field.name), bool):
                raise ConfigurationError(f"{field.name} must be true or false, got {getattr(self, field.name)!r}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Policy | None:
        """From a node's configuration: its keys that begin with ``securefl-``, and the file that one of them names.

        ``None`` when there are no such keys.
        Raises :class:`ConfigurationError` for unknown keys, values that cannot be, and files that cannot be read: a
        policy that was meant and mistyped must not be taken for none.
        """
        if not any(key.startswith(PREFIX) for key in settings):
            return None
        own = {key: value for key, value in settings.items() if key.startswith(PREFIX) and key not in _OTHERS}
        policy = cls.named({key.removeprefix(PREFIX).replace("-", "_"): v for key, v in own.items()}, PREFIX)
        if FILE_KEY not in settings:
            return policy
        path = Path(str(settings[FILE_KEY]))
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the policy {path} cannot be read: {error}") from None
        return policy.stricter(cls.named(document, f"{path}: "))

    @classmethod
    def named(cls, settings: Mapping[str, Any], where: str = "") -> Policy:
        """From its fields' names. ``where``: they stand, for the sentence of the :class:`ConfigurationError`."""
        unknown = sorted(settings.keys() - {field.name for field in fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise ConfigurationError(f"{where}{unknown[0]} is no setting of a policy; there are {known}")
        return cls(**settings)

    def stricter(self, other: Policy) -> Policy:
        """Field by field the higher floor, and only what both permit."""
        merged = {
            field.name: (min if field.name.startswith("allow_") else max)(
                getattr(self, field.name), getattr(other, field.name)
            )
            for field in fields(self)
        }
        return Policy(**merged)

    def check(self, invitation: Invitation, peers: Peers | None = None) -> None:
        """Raises :class:`ConfigurationError`, :class:`TooFewClientsError` or :class:`AuthenticationError`: this party
        takes no part. ``peers``: whom it knows.
        """
        if invitation.protect == "plain" and not self.allow_plain:
            raise ConfigurationError("the server proposes an unprotected sum; this client's policy is allow_plain = no")
        if invitation.protect not in ("plain", *PROTECTED):
            raise ConfigurationError(
                f"the server proposes the protection {invitation.protect!r}, which is unknown here"
            )
        if invitation.clients < self.minimum_clients:
            raise TooFewClientsError(
                f"{invitation.clients} clients are invited; this client takes part with at least "
                f"{self.minimum_clients} (minimum_clients of its policy)"
            )
        if invitation.threshold < self.minimum_threshold or 2 * invitation.threshold <= invitation.clients:
            raise TooFewClientsError(
                f"a threshold of {invitation.threshold} of {invitation.clients} clients; this client asks for a "
                f"majority and at least {self.minimum_threshold} (minimum_threshold of its policy)"
            )
        if self.minimum_survivors > invitation.clients:
            raise TooFewClientsError(
                f"{invitation.clients} clients are invited; this client asks for {self.minimum_survivors} in the sum "
                "(minimum_survivors of its policy)"
            )
        if invitation.noise is not None and invitation.noise.minimum_survivors > invitation.threshold:
            raise ConfigurationError(
                f"the noise is sized for {invitation.noise.minimum_survivors} survivors and the sum may be opened over "
                f"{invitation.threshold}"
            )
        if needs_helper(invitation.protect, invitation.key_model) and invitation.threshold < self.minimum_survivors:
            raise TooFewClientsError(  # clients are not told who survives: the helper keeps to the threshold
                f"a sum under {invitation.protect} may be opened over {invitation.threshold} clients; this client asks "
                f"for {self.minimum_survivors} (minimum_survivors of its policy)"
            )
        self._check_names(invitation, peers)
        noise = invitation.noise.noise_multiplier if invitation.noise is not None else 0.0
        if noise < self.minimum_noise:
            raise ConfigurationError(
                f"a noise multiplier of {noise:g} is proposed; this client asks for {self.minimum_noise:g} "
                "(minimum_noise of its policy)"
            )

    def _check_names(self, invitation: Invitation, peers: Peers | None) -> None:
        pinned = peers is not None and peers.pinned
        if pinned and not invitation.identities and invitation.protect != "plain":
            raise AuthenticationError(
                f"the server names no public keys, and this client takes part with those in {PEERS_KEY} alone: the "
                "server must ask for identities"
            )
        if invitation.protect in ("ckks", "shared") and not pinned and not self.allow_unpinned:
            raise AuthenticationError(
                f"a sum under {invitation.protect} rests on whose the public keys are, and this client was given none: "
                f"name a file of them in {PEERS_KEY}, or say allow_unpinned and trust the server for them"
            )

    def survivors_for(self, invitation: Invitation) -> int:
        """The least number of clients in this sum: the threshold, or this client's own floor where that is higher."""
        return max(self.minimum_survivors, invitation.threshold)
