"""Sums under CKKS ciphertexts, exact: the aggregator adds what it cannot read, a key holder opens only the sum.

A sum needs no slots and no multiplications, so integers stand in the *coefficients* of a CKKS plaintext, several to a
coefficient: there the noise has a bound that no data can exceed, and the decrypted sum is read exactly or refused.
SPEC: protocols/ckks-sum/SPEC.md.

``params``    named parameter sets, noise bounds, what one session is about
``lattice``   integers ↔ coefficients
``ring``      exact arithmetic on residues
``backend``   SEAL through TenSEAL (extra ``ckks``)
"""
