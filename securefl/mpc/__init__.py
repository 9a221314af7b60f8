"""Secret-shared computation by three parties: two servers that compute and a helper that only deals masks.

An import-light package: names are resolved on first use (``securefl.mpc.local_cluster`` stands in ``securefl.cluster``,
above the transport).
"""

from __future__ import annotations
