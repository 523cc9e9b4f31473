"""Most jobs at a time over all arrays of a sweep, kept by Slurm itself, so that no driver needs to be there.

Slurm's own limit holds within one array. So each array has a share of the whole, and where there are more arrays than
jobs that may work, the later ones wait for an earlier one to be over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.slurm.submission import Assignment, Submission, Turn


@dataclass
class _Lane:
    """Arrays that work one after another."""

    held: int
    """Jobs of it that work at a time, at most."""
    work: float
    """Rounds of jobs that it has before it."""


class Turns:
    """Shares out the limit among arrays that are in the queue and those to come."""

    def __init__(self, limit: int, board: Mapping[str, Assignment]) -> None:
        """Take what works and waits.

        Args:
            limit: most jobs at a time; 0 for no limit.
            board: which job is to train which run.
        """
        self.limit = limit
        self.left = _jobs_left(board.values())
        self._lanes: dict[str, _Lane] = {}
        """By the last job of each."""
        followed = {submission.turn.after for submission in self.left}
        for submission, left in self.left.items():
            if submission.job not in followed:
                throttle = submission.turn.throttle or left
                is_first = submission.turn.after not in {other.job for other in self.left}
                self._lanes[submission.job] = _Lane(min(throttle, left) if is_first else throttle, left / throttle)

    @property
    def free(self) -> int:
        """How many more jobs may work at a time than those that are in the queue."""
        return self.limit - sum(lane.held for lane in self._lanes.values())

    def next(self, size: int, to_come: Sequence[int] = ()) -> Turn:
        """Return when an array may work.

        Args:
            size: how many jobs it has.
            to_come: the sizes of the arrays after it, which want a share too.
        """
        if not self.limit:
            return Turn()
        if self.free < 1:
            after = min(self._lanes, key=lambda job: self._lanes[job].work)
            return Turn(throttle=self._lanes[after].held, after=after)
        fair = round(self.free * size / (size + sum(to_come)))
        return Turn(throttle=max(1, min(fair, size, self.free - len(to_come))))

    def take(self, job: str, size: int, turn: Turn) -> None:
        """Note that an array was submitted so."""
        if self.limit:
            before = self._lanes.pop(turn.after, _Lane(0, 0.0))
            held = turn.throttle if turn.after else min(turn.throttle, size)
            self._lanes[job] = _Lane(held, before.work + size / turn.throttle)

    def widest(self) -> tuple[Submission, int] | None:
        """Return an array that could use what is free, and how many jobs of it may work then; None if none could."""
        hungry = [one for one, left in self.left.items() if one.job in self._lanes and left > one.turn.throttle > 0]
        if not self.limit or self.free < 1 or not hungry:
            return None
        chosen = max(hungry, key=lambda one: self.left[one])
        return chosen, chosen.turn.throttle + self.free


def _jobs_left(board: Iterable[Assignment]) -> Counter[Submission]:
    """Return how many jobs of each submission are not over."""
    jobs = {assigned.number: assigned.submission for assigned in board if not assigned.job.is_over}
    return Counter(jobs.values())
