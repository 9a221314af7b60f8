"""From an update to a vector of small integers and back. In topological order:

``layout``     named tensors ↔ one flat vector, with a hash of the schema
``quantize``   a flat update ↔ integers on a public grid, by stochastic rounding
``clipping``   the ℓ2 bound on a whole update
``ring``       integers ↔ lanes packed into 64-bit words, with headroom for the sum
``radix``      the same in any base; ``packing``: vectors of several ranges

and, for compression (what commutes with the sum: see ``compressor``):

``public``     the randomness that all parties share
``hadamard``   a public rotation of blocks
``sparsify``   random-k, pruned support; ``project``: random projection; ``lowrank``: PowerSGD; ``chain``
``rotate``     few levels on a common grid after the rotation: the default
``feedback``   what a coder drops comes back
``tail``       weight, energy and check behind the values; ``payload``: both together
``weights``    the downloaded model in int8 or int4
``rules``      combinations that are refused, and why

Everything here commutes with the sum: the integers of all clients are added and decoded once.
SPEC: protocols/encoding/SPEC.md, protocols/compression/SPEC.md.
"""
