"""Seeds for random draws that must not depend on what was drawn before them."""

import hashlib


def mix(*parts: int) -> int:
    """A 63-bit seed that is a function of all parts: (seed, step, micro-batch, rank)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
