"""From an update to a vector of small integers and back. In topological order:

``layout``    named tensors ↔ one flat vector, with a hash of the schema
``clipping``  the ℓ2 bound on a whole update
``quantize``  a flat update ↔ integers on a public grid, by stochastic rounding
``ring``      integers ↔ lanes packed into 64-bit words, with headroom for the sum

Everything here commutes with the sum: the integers of all clients are added and decoded once.
SPEC: protocols/encoding/SPEC.md.
"""
