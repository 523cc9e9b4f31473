"""Seeds are derived from named parts, never from how often something was called before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on the parts and their order only."""
    digest = hashlib.sha256("\x1f".join(f"{type(part).__name__}:{part}" for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: str | int) -> torch.Generator:
    """Return a CPU generator seeded from named parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def seed_everything(*parts: str | int) -> None:
    """Reseed every global generator from named parts.

    Called before each phase of a run, so that a phase never depends on what ran before it and
    resuming is exact without saving any generator's state.
    """
    seed = seed_of(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Leave the global generators of the CPU as they were: for what is called from a user's own program."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
