"""Verdicts: how one contract test ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmark.check.places import Places
from benchmark.errors import UserError


@dataclass(frozen=True)
class Result:
    """The verdict of one contract test."""

    name: str
    verdict: str
    """ok, note, fail or n/a"""
    detail: str = ""
    where: str = ""
    """`file:line` of the plugin, where there is one to look at."""

    @property
    def failed(self) -> bool:
        return self.verdict == "fail"

    @property
    def colour(self) -> str:
        return {"ok": "green", "fail": "red"}.get(self.verdict, "yellow")


class Broken(AssertionError):
    """A plugin does not keep the contract; the message says how."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


def judge(name: str, test: Callable[[], str | None], places: Places | None = None, *methods: str) -> Result:
    """Run a contract test.

    Args:
        name: of the test.
        test: returns what is to be said of a plugin that passes.
        places: where to look for the line of a failure.
        methods: those of the plugin that the test is about; the first that it defines is named where nothing better is.
    """
    try:
        return Result(name, "ok", test() or "")
    except Exception as error:  # whatever a plugin raises is its verdict
        where = ""
        if places is not None:
            where = getattr(error, "where", "") or places.of_error(error) or places.of_method(*methods)
        return Result(name, "fail", say(error), where)


def say(error: BaseException) -> str:
    """Return what an exception says, in a few words."""
    if isinstance(error, Broken | UserError):
        return str(error)
    return f"{type(error).__name__}: {error}".strip()


def require(condition: bool, message: str, where: str = "") -> None:
    """Raise `Broken` unless the condition holds."""
    if not condition:
        raise Broken(message, where)
