"""What a user types: seeds, names with settings in brackets, assignments."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import Problem, Problems, UserError
from benchmark.settings import is_balanced, next_comma, parse_value, split_list

MAX_SEEDS = 100_000
"""Most seeds of a sweep."""
MAX_SEED = 2**63 - 1
MAX_GRID = 10_000
"""Most settings that one name in brackets stands for."""
MAX_RUNS = 100_000
"""Most runs of a sweep."""
MAX_PATH = 4096
"""Most characters of a file's path."""
MAX_DEPTH = 20
"""Most dots in the key of an assignment."""


def parse_seeds(text: str) -> list[int]:
    """Read `0-4`, `0,1,7` or `5` (that one seed).

    Raises:
        UserError: when it is empty or not made of whole numbers.
    """
    seeds: list[int] = []
    for part in split_list(text):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last) if dash else int(first)
        except ValueError:
            seeds = []
            break
        if high > MAX_SEED or len(seeds) + high - low >= MAX_SEEDS:  # counted before anything of that size is made
            raise UserError(Problem("--seeds", f"at most {MAX_SEEDS} seeds, each at most {MAX_SEED}", _short(text)))
        seeds += range(low, high + 1)
    if not seeds:
        raise UserError(Problem("--seeds", "whole numbers such as 0-4, 0,1,7 or 5", _short(text)))
    return list(dict.fromkeys(seeds))


def _short(text: str) -> str:
    return repr(text if len(text) < 80 else f"{text[:60]}... ({len(text)} characters)")


def split_plugins(text: str) -> list[str]:
    """Split a list of plugins at commas outside brackets, and outside the paths of files that are there."""
    names, start = [], 0
    while start <= len(text):
        start += len(text[start:]) - len(text[start:].lstrip())
        end = next_comma(text, start + len(_file_at_start(text[start:])))
        names.append(text[start:end].strip())
        start = end + 1
    return [name for name in names if name]


def _file_at_start(text: str) -> str:
    """Return the path of a Python file that a text starts with, whose folders may have any name; empty without one."""
    for found in re.finditer(r"\.py(?=[,:\[\s]|$)", text[:MAX_PATH]):
        with suppress(OSError):  # too long for a name
            if Path(text[: found.end()]).is_file():
                return text[: found.end()]
    return ""


def parse_bracketed(token: str) -> tuple[str, list[dict[str, Any]]]:
    """Read `name[key=value,value,other=value]` into the name and the grid of its settings.

    Raises:
        UserError: when brackets do not match or an entry is no assignment.
    """
    head = _file_at_start(token)
    name, bracket, rest = token[len(head) :].partition("[")
    name = head + name
    if not bracket:
        return name, [{}]
    wrong = Problem(_short(token), "name[key=value,...]", "unbalanced brackets or an entry without a key")
    if not rest.endswith("]") or not is_balanced(token[len(head) :]):
        raise UserError(wrong)
    options: dict[str, list[Any]] = {}
    for entry in split_list(rest[:-1]):
        key, equals, value = entry.partition("=")
        if equals:
            options[key.strip()] = [parse_value(value.strip())]
        elif options:
            options[next(reversed(options))].append(parse_value(entry))
        else:
            raise UserError(wrong)
    count = math.prod(map(len, options.values()))
    if count > MAX_GRID:
        raise UserError(Problem(_short(token), f"a grid of at most {MAX_GRID} settings", str(count)))
    return name, [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def parse_assignments(settings: Sequence[str], problems: Problems | None = None) -> dict[str, dict[str, Any]]:
    """Read `target.key=value` assignments into {target: {key: value}}; dots in the key nest.

    Args:
        settings: the assignments as typed.
        problems: takes what is wrong with malformed ones, so that the others are kept.

    Raises:
        UserError: with every malformed assignment, where `problems` is not given.
    """
    found = Problems() if problems is None else problems
    assigned: dict[str, dict[str, Any]] = {}
    for setting in settings:
        with found.collect():
            path, equals, value = setting.partition("=")
            target, dot, key = path.strip().partition(".")
            if not (equals and dot and target and key):
                raise UserError(Problem("--set", "target.key=value, such as ogm.alpha=0.3", _short(setting)))
            *parents, leaf = key.split(".")
            if len(parents) > MAX_DEPTH:
                raise UserError(Problem("--set", f"at most {MAX_DEPTH} dots in a key", _short(setting)))
            inner = assigned.setdefault(target, {})
            for parent in parents:
                inner = inner.setdefault(parent, {})
                if not isinstance(inner, dict):
                    got = f"{setting!r} below the value {inner!r}"
                    raise UserError(Problem("--set", "a key that holds others", got))
            inner[leaf] = parse_value(value.strip())
    if problems is None:
        found.raise_any()
    return assigned
