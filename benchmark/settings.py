"""Typed, frozen settings: the base of every config, with errors that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.errors import Problem, UserError, nearest

KIND = "kind"
"""Name of the field that tells settings of several classes apart."""

MAX_TYPED = 10_000
"""Most characters of a value typed on the command line."""
MAX_BRACKETS = 200
"""Most brackets that open in it."""

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """A frozen set of typed values. Unknown keys, wrong types, NaN and infinity are refused.

    The string under each field is its documentation: meaning, unit, source of the default.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    @property
    def parts(self) -> Sequence[str]:
        """Names of other plugins of the same kind of which one with these settings is made; they decide its numbers."""
        return ()

    def changed(self) -> dict[str, Any]:
        """Return the fewest fields, in JSON types, that give these settings; the others follow by default."""
        dumped = self.model_dump(mode="json")
        needed = {name: _fewest(getattr(self, name), value) for name, value in dumped.items()}
        for name, field in reversed(type(self).model_fields.items()):
            rest = {key: value for key, value in needed.items() if key != name}
            if not field.is_required() and self._follows_from(rest):
                needed = rest
        return needed

    def _follows_from(self, values: Mapping[str, Any]) -> bool:
        try:
            return type(self).model_validate_json(json.dumps(values)) == self
        except ValidationError:  # some settings fit together only
            return False


def _fewest(value: Any, dumped: Any) -> Any:
    """Return a field's value in JSON types, settings inside it by their fewest fields and the one that tells them."""
    if isinstance(value, Settings):
        told = {KIND: dumped[KIND]} if KIND in dumped else {}
        return {**told, **value.changed()}
    if isinstance(value, Mapping):
        return {key: _fewest(value[key], inner) for key, inner in dumped.items()}
    return dumped


def parse_settings(kind: type[SettingsT], values: Mapping[str, Any], where: str) -> SettingsT:
    """Build settings from plain values.

    Args:
        kind: the settings class.
        values: field values in JSON types; fields left out have their defaults.
        where: what the values belong to, for messages ("method ogm").

    Raises:
        UserError: with one problem for each bad key or value.
    """
    try:
        text = json.dumps(dict(values), default=_no_json)
    except (ValueError, TypeError, RecursionError) as error:  # numbers of thousands of digits, circles, odd keys
        got = "values nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(Problem(where, "plain values", got)) from None
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(*(_problem(kind, detail, where) for detail in error.errors())) from None


def check_settings(kind: type[Settings], values: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for the bad keys and values among those given, whether or not others are still missing."""
    try:
        parse_settings(kind, values, where)
    except UserError as error:
        missing = {f"a value for {name!r}" for name in kind.model_fields}
        wrong = [problem for problem in error.problems if problem.expected not in missing]
        if wrong:
            raise UserError(*wrong) from None


def _no_json(value: object) -> list[str]:
    """Replace a value that JSON does not have, such as a date of YAML, by one that no setting accepts."""
    return [str(value)]


def _problem(kind: type[Settings], detail: Mapping[str, Any], where: str) -> Problem:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = kind.model_fields if len(detail["loc"]) == 1 else ()
        return Problem(where, "a known setting", repr(path), nearest(path, known) if known else "")
    if detail["type"] == "missing":
        return Problem(where, f"a value for {path!r}", "none", f"Give {path}=...")
    message = str(detail["msg"])
    expected = message.removeprefix("Input should be ").removeprefix("Value error, ")
    got = json.dumps(detail["input"]) if len(json.dumps(detail["input"], default=str)) < 80 else "another structure"
    return Problem(f"{where}, {path}" if path else where, expected, got)


def is_balanced(text: str) -> bool:
    """Return whether every bracket that opens is closed, and none closes that was not open."""
    open_brackets: list[str] = []
    for char in text:
        if char in "[{":
            open_brackets.append(char)
        elif char in "]}" and (not open_brackets or open_brackets.pop() + char not in ("[]", "{}")):
            return False
    return not open_brackets


def split_list(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, start = [], 0
    while start <= len(text):
        end = next_comma(text, start)
        parts.append(text[start:end].strip())
        start = end + 1
    return [part for part in parts if part]


def next_comma(text: str, start: int = 0) -> int:
    """Return the position of the first comma outside brackets from `start` on, the text's length without one."""
    depth = 0
    for position in range(start, len(text)):
        char = text[position]
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0:
            return position
    return len(text)


def parse_value(text: str) -> Any:
    """Read a value typed on the command line: JSON, else a Python-style number or truth value, else text.

    `0.3`, `1e-3`, `.5`, `true`, `True`, `null`, `[1, 2]` and `name` all mean what they say.
    """
    words: dict[str, Any] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    if len(text) > MAX_TYPED or text.count("[") + text.count("{") > MAX_BRACKETS:
        expected = f"at most {MAX_TYPED} characters and {MAX_BRACKETS} opening brackets"
        raise UserError(Problem("a value", expected, f"{len(text)} characters, {text[:20]!r}..."))
    try:
        return json.loads(text)
    except ValueError:
        pass
    if text.startswith("[") and text.endswith("]"):
        return [parse_value(part) for part in split_list(text[1:-1])]
    try:
        return float(text)
    except ValueError:
        return text


def label(name: str, changed: Mapping[str, Any]) -> str:
    """Return a name with settings in brackets, as the user would type it."""
    shown = ",".join(f"{key}={_typed(value)}" for key, value in changed.items())
    return f"{name}[{shown}]" if shown else name


def _typed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
