"""Seeds from names: every random draw depends on what it is for, never on order, world size or wall clock."""

from __future__ import annotations

import hashlib


def derive_seed(*names: object) -> int:
    """A seed in [0, 2**31) that is a hash of the names, e.g. ``derive_seed(seed, round, prompt_id, j)``.

    31 bits because every consumer takes them (torch, numpy, vLLM).
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def content_id(text: str) -> str:
    """The stable id of a prompt: 16 hex digits of the hash of its text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
