"""Pairwise-masked sums: the server learns the sum over the survivors and nothing about any one input.

Protects honest clients' inputs against a semi-honest server that colludes with up to threshold − 1 clients.
SPEC with all definitions, checks and leakage: protocols/secagg/SPEC.md. In topological order:

``params``      what all parties agree on, and the hash that binds it
``messages``    the eight messages, with their lengths
``masking``     the keys and masks that client and server both derive
``unmasking``   opening and checking seeds, naming liars, taking masks off
``suspension``  a client between two messages, as bytes
``client``      :class:`Client`, sans-IO
``server``      :class:`Server`, sans-IO
``protection``  :class:`MaskedSum`, the face the pipeline uses
"""

from securefl.primitives.kem import Suite
from securefl.secagg.client import Client
from securefl.secagg.messages import client_limits, server_limits
from securefl.secagg.params import Adversary, Graph, Params
from securefl.secagg.protection import MaskedSum
from securefl.secagg.server import Server

__all__ = ["Adversary", "Client", "Graph", "MaskedSum", "Params", "Server", "Suite", "client_limits", "server_limits"]
