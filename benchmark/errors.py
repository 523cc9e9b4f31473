"""Errors a user can act on: what was expected, what came, what to do. All at once, never one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Problem:
    """One thing wrong with what the user gave."""

    where: str
    """What was being read: an option, a file, a key."""
    expected: str
    got: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: expected {self.expected}, got {self.got}."
        return f"{text} {self.fix}" if self.fix else text


class UserError(Exception):
    """Bad input, with every problem found. The command line prints them and exits with code 2."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))

    def __reduce__(self) -> tuple[type[UserError], tuple[Problem, ...]]:
        return type(self), self.problems


class Problems:
    """Collects problems over a whole sweep, to be raised once."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the problems of a `UserError` raised inside the block and go on after it."""
        try:
            yield
        except UserError as error:
            self._found.extend(problem for problem in error.problems if problem not in self._found)

    def raise_any(self) -> None:
        """Raise `UserError` with all problems collected so far, if there are any."""
        if self._found:
            raise UserError(*self._found)


def line_in(error: BaseException, file: str) -> int | None:
    """Return the innermost line of a file that an exception, or what it was raised from, passed through."""
    found = error.lineno if isinstance(error, SyntaxError) and error.filename == file else None
    cause: BaseException | None = error
    while cause is not None:
        frame = cause.__traceback__
        while frame is not None:
            found = frame.tb_lineno if frame.tb_frame.f_code.co_filename == file else found
            frame = frame.tb_next
        cause = cause.__cause__
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice that names the closest known name and lists the known ones."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    listed = ", ".join(names[:20]) + (f" ... ({len(names)} in all)" if len(names) > 20 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Available: {listed or 'none'}."
