"""Which epochs something happens in; epochs count from 0."""

from __future__ import annotations


def within(epoch: int, first: int, last: int | None) -> bool:
    """Return whether an epoch is one of those from `first` to `last`, inclusive; None for no last one."""
    return first <= epoch and (last is None or epoch <= last)


def tenth(epochs: int) -> int:
    """Return a tenth of so many epochs, at least one."""
    return max(epochs // 10, 1)
