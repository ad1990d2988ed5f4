"""Randomness: every random choice is derived from the recipe's one seed and the names of what it is for."""

import hashlib
import random


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed from `seed` and `names`; unrelated for any two different lists of names (never seed + index)."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng(seed: int, *names: str | int) -> random.Random:
    """A generator of its own for what `names` says."""
    return random.Random(derive(seed, *names))


def content_id(*parts: str | int) -> str:
    """Identity of a record: 16 hex digits of the hash of what it is made of."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
