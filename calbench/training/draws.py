"""Random draws keyed by what they are for, never by the process, worker or order that happens to make them."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def key(*what: object) -> int:
    """63 bits that depend on the texts of `what` alone: the seed first, then the epoch, the image and the purpose.

    >>> key(0, 3, "cat") == key(0, 3, "cat"), key(0, 3, "cat") == key(0, 4, "cat")
    (True, False)
    """
    text = "\x1f".join(str(part) for part in what)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*what: object) -> torch.Generator:
    """A generator of torch on the CPU, seeded by `key`, of which torch takes the lower 32 bits."""
    return torch.Generator().manual_seed(key(*what))


def rng(*what: object) -> np.random.Generator:
    """A generator of NumPy, seeded by `key`."""
    return np.random.default_rng(key(*what))
