"""The n-of-n CKKS sum: no party holds a key that opens anything; the sum opens when every party helps, once.

Each party makes a key share; clients encrypt under the sum of the shares; the server adds ciphertexts; each party gives
one partial decryption of the sum, drowned in fresh noise. SPEC: protocols/ckks-threshold/SPEC.md.

``wide``      exact arithmetic in Z_q[X]/(X^N + 1) for q = 2^208
``sampling``  ternary secrets, noise, flooding, the common reference polynomial
``digits``    integers ↔ 128-bit coefficients
``params``    bounds and statistical security of one session
``check``     signed fingerprints: what the server announced is the sum of what clients sent
``messages``, ``client``, ``server``, ``protection``
"""

from securefl.ckks.threshold.client import ThresholdClient
from securefl.ckks.threshold.params import ThresholdParams
from securefl.ckks.threshold.protection import ThresholdSum
from securefl.ckks.threshold.server import ThresholdServer

__all__ = ["ThresholdClient", "ThresholdParams", "ThresholdServer", "ThresholdSum"]
