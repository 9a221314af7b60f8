"""Mutual TLS 1.3 between parties that know each other. SPEC: protocols/transport/SPEC.md.

``pki``          an authority of one's own, certificates for parties
``credentials``  who a party is; TLS contexts
``frames``       what travels inside TLS
``stream``       TLS over memory buffers; ``patience``: how long to wait
``link``         whole messages between two parties, with deadlines
``handshake``    how a link is opened, or refused with its reason
``listener``     letting parties in
``mesh``         several links as one channel
"""

from securefl.transport.tls.credentials import Credentials
from securefl.transport.tls.handshake import Address, connect, parse_address
from securefl.transport.tls.link import Link
from securefl.transport.tls.listener import Listener
from securefl.transport.tls.mesh import Mesh, join

__all__ = ["Address", "Credentials", "Link", "Listener", "Mesh", "connect", "join", "parse_address"]
