"""The grid of an ablation: a method as it is, without one part at a time, and what is left when it is switched off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.errors import Problem, UserError
from benchmark.plan.typed import parse_bracketed
from benchmark.registry import METHODS
from benchmark.settings import label


def grid(token: str) -> list[str]:
    """Return the methods of an ablation, as a user would type them.

    Args:
        token: a method by name or path, perhaps with settings in brackets that every row of it shares.

    Raises:
        UserError: when there is no such method, the settings are several, or nothing of it can be taken away.
    """
    name, given = parse_bracketed(token)
    where = f"method {name}"
    if len(given) > 1:
        raise UserError(Problem(where, "one value for each setting", f"{len(given)} combinations"))
    method = METHODS.find(name).load()
    changes: Sequence[dict[str, Any]] = [dict(change) for change in method.ablations or method.variants if change]
    switches = method.off_switches
    if not (changes or switches):
        advice = "Declare them on its class: ablations = ({'part': False}, ...)."
        raise UserError(Problem(where, "a method with ablations, variants or off-switches", "none", advice))
    rows = [label(name, given[0]), *(label(name, {**given[0], **change}) for change in changes)]
    return list(dict.fromkeys([*rows, *(label(switch.equals, switch.baseline) for switch in switches)]))
