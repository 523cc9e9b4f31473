"""Verdicts: how one contract test ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmark.errors import UserError


@dataclass(frozen=True)
class Result:
    """The verdict of one contract test."""

    name: str
    verdict: str
    """ok, fail or n/a"""
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict == "fail"

    @property
    def colour(self) -> str:
        return {"ok": "green", "fail": "red", "n/a": "yellow"}[self.verdict]


class Broken(AssertionError):
    """A plugin does not keep the contract; the message says how."""


def judge(name: str, test: Callable[[], str | None]) -> Result:
    try:
        return Result(name, "ok", test() or "")
    except Broken as broken:
        return Result(name, "fail", str(broken))
    except UserError as error:
        return Result(name, "fail", str(error))
    except Exception as error:  # whatever a plugin raises is its verdict
        return Result(name, "fail", f"{type(error).__name__}: {error}")


def require(condition: bool, message: str) -> None:
    """Raise `Broken` unless the condition holds."""
    if not condition:
        raise Broken(message)
