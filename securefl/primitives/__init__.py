"""Small cryptographic building blocks, one idea each, in topological order:

``entropy``   the operating system's randomness behind one injectable source
``kdf``       domain-separated key derivation and structured hashing
``kem``       key pairs from seeds and HPKE seals, for the suites x25519 and mlkem768-x25519
``prg``       AES-128-CTR streams added into a ring vector, in blocks that fit the cache
``shamir``    t-of-n sharing of 32-byte secrets

Primitives come from OpenSSL by way of ``cryptography``; structured hashes (SP 800-185) from pycryptodome.
These modules assume that the caller knows what they are for: protocols use them, applications should not.
"""
