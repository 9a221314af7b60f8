"""Computing parties as threads and processes, and torch models on shares."""

from __future__ import annotations
