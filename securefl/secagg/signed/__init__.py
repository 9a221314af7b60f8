"""The masked sum among parties that know each other's public keys, against a server that does not follow the protocol.

Around the roles of ``securefl.secagg``, whose messages stay as they are: SPEC: protocols/secagg/SPEC.md §11.

- Clients sign the keys that they advertise. A client shares keys with those alone whose signature verifies under a
  public key that it was given, so that a server cannot put keys of its own in anybody's place.
- They sign each box of shares for its recipient, since a sealed box says nothing about who sealed it: a server that
  could make boxes would choose the secrets of every pair's mask.
- Before a client answers an unmask request, at least a threshold of clients must have signed for the same request. A
  client signs for one in its life. With t > (n + c)/2, c of n clients colluding with the server, two different requests
  cannot both have t signatures: all honest clients unmask the same set of at least t, and none of its members alone.

``messages``  signatures and lists of them
``client``    :class:`SignedClient`
``server``    :class:`SignedServer`
"""

from securefl.secagg.signed.client import SignedClient
from securefl.secagg.signed.server import SignedServer

__all__ = ["SignedClient", "SignedServer"]
