"""Settings refuse what they do not know, say so in words a user can act on, and say it all at once."""

from __future__ import annotations

import json
import math
import pickle
from datetime import date
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.settings import Settings, check_settings, is_balanced, label, parse_settings, parse_value, split_list


class Inner(Settings):
    depth: int = 1


class Example(Settings):
    alpha: float = Field(default=0.3, ge=0, le=1)
    count: int = 2
    flag: bool = False
    name: str = "plain"
    inner: Inner = Inner()


class Needy(Settings):
    modality: str


def problems_of(values: dict, kind: type[Settings] = Example) -> tuple[Problem, ...]:
    with pytest.raises(UserError) as caught:
        parse_settings(kind, values, "method example")
    return caught.value.problems


def test_an_unknown_key_names_the_nearest_known_one():
    (problem,) = problems_of({"alhpa": 0.1})
    assert "alhpa" in problem.got
    assert "Did you mean 'alpha'?" in problem.fix


@pytest.mark.parametrize(
    ("values", "expected", "got"),
    [
        ({"alpha": True}, "number", "true"),
        ({"alpha": "0.1"}, "number", '"0.1"'),
        ({"alpha": 1.5}, "less than or equal to 1", "1.5"),
        ({"alpha": -1}, "greater than or equal to 0", "-1"),
        ({"alpha": math.nan}, "finite number", "NaN"),
        ({"alpha": math.inf}, "finite number", "Infinity"),
        ({"alpha": None}, "number", "null"),
        ({"count": 1.5}, "integer", "1.5"),
        ({"count": True}, "integer", "true"),
        ({"flag": 1}, "boolean", "1"),
        ({"name": 3}, "string", "3"),
        ({"inner": {"depth": "deep"}}, "integer", '"deep"'),
        ({"name": date(2024, 1, 1)}, "string", "2024-01-01"),
    ],
)
def test_a_wrong_value_says_where_what_was_expected_and_what_came(values, expected, got):
    (problem,) = problems_of(values)
    assert "method example" in problem.where
    assert next(iter(values)) in problem.where
    assert expected in problem.expected
    assert got in problem.got


def test_a_missing_value_says_how_to_give_it():
    (problem,) = problems_of({}, Needy)
    assert "modality" in str(problem)
    assert "modality=" in problem.fix


def test_all_problems_of_one_config_are_raised_at_once():
    problems = problems_of({"alhpa": 1, "count": "x", "flag": "y", "inner": {"depth": None}})
    assert len(problems) == 4


def test_an_integer_will_do_for_a_float():
    assert parse_settings(Example, {"alpha": 1}, "example").alpha == 1.0


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Example().alpha = 0.5


def test_changed_lists_what_differs_from_the_defaults_and_parses_back():
    given = Example(alpha=0.0, inner=Inner(depth=3))
    assert given.changed() == {"alpha": 0.0, "inner": {"depth": 3}}
    assert parse_settings(Example, json.loads(json.dumps(given.changed())), "example") == given


def test_changed_keeps_a_required_value():
    assert Needy(modality="audio").changed() == {"modality": "audio"}


class Bounded(Settings):
    most: int = 10
    some: int = 5

    @model_validator(mode="after")
    def _fits(self):
        if self.some > self.most:
            raise ValueError("some at most most")
        return self


def test_settings_that_only_fit_together_are_both_told():
    assert Bounded(most=3, some=2).changed() == {"most": 3, "some": 2}
    assert Bounded(most=7).changed() == {"most": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("1e-3", 0.001), (".5", 0.5), ("-2", -2), ("true", True), ("True", True), ("False", False),
        ("null", None), ("None", None), ("[1,2]", [1, 2]), ("[fused,mean]", ["fused", "mean"]),
        ("[fused,[a,b]]", ["fused", ["a", "b"]]), ("[fused", "[fused"), ("[]", []),
        ('{"a": 1}', {"a": 1}), ("paper", "paper"), ('"0"', "0"),
    ],
)  # fmt: skip
def test_a_typed_value_means_what_it_says(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b", ["a", "b"]),
        ("a[x=1,y=[2,3]],b", ["a[x=1,y=[2,3]]", "b"]),
        ("a[b,c],d[e,f],g", ["a[b,c]", "d[e,f]", "g"]),
        (" a , ,b,", ["a", "b"]),
        ("", []),
    ],
)
def test_commas_in_brackets_do_not_split_a_list(text, parts):
    assert split_list(text) == parts


@pytest.mark.parametrize(
    ("text", "balanced"),
    [("", True), ("a[b]{c}", True), ("[{}]", True), ("[", False), ("]", False), ("[}", False), ("[]]", False)],
)
def test_brackets_are_balanced_when_each_closes_what_opened_last(text, balanced):
    assert is_balanced(text) is balanced


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, "aug"),
        ({"lr": 0.1, "variant": "paper"}, "aug[lr=0.1,variant=paper]"),
        ({"rules": ["fused", "mean"], "flag": True}, "aug[rules=[fused,mean],flag=true]"),
    ],
)
def test_a_label_is_what_the_user_would_type(changed, shown):
    assert label("aug", changed) == shown


def test_what_is_given_is_checked_while_something_is_missing():
    check_settings(Needy, {}, "method needy")
    with pytest.raises(UserError) as caught:
        check_settings(Needy, {"modality": 3, "other": 1}, "method needy")
    assert {problem.got for problem in caught.value.problems} == {"3", "'other'"}


@pytest.mark.parametrize(("length", "told"), [(77, True), (78, False)])
def test_a_value_of_80_characters_or_more_is_not_repeated(length, told):
    (problem,) = problems_of({"count": "x" * length})
    assert (problem.got == f'"{"x" * length}"') is told


def test_user_errors_survive_pickling_between_processes():
    error = UserError(Problem("a", "b", "c", "d"), Problem("e", "f", "g"))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)


def test_collected_problems_are_raised_together_and_once():
    problems = Problems()
    first, second = Problem("a", "b", "c"), Problem("x", "y", "z")
    for problem in (first, second, first):
        with problems.collect():
            raise UserError(problem)
    with pytest.raises(UserError) as caught:
        problems.raise_any()
    assert caught.value.problems == (first, second)


def test_nothing_collected_raises_nothing():
    Problems().raise_any()


def test_other_errors_pass_through_the_collector():
    problems = Problems()
    with pytest.raises(ZeroDivisionError), problems.collect():
        raise ZeroDivisionError


def test_nearest_lists_what_there_is_and_says_none_when_there_is_nothing():
    assert nearest("ogn", ["ogm", "aug"]) == "Did you mean 'ogm'? Available: aug, ogm."
    assert "Did you mean" not in nearest("zzzzzz", ["ogm", "aug"])
    assert "none" in nearest("x", [])


class Line(Settings):
    kind: Literal["line"] = "line"
    slope: float = 1.0


class Step(Settings):
    kind: Literal["step"] = "step"
    at: float = 0.5
    height: float = 2.0


class Curves(Settings):
    main: Annotated[Line | Step, Field(discriminator="kind")] = Line()
    more: dict[str, Annotated[Line | Step, Field(discriminator="kind")]] = {}


@pytest.mark.parametrize(
    ("given", "fewest"),
    [
        ({}, {}),
        ({"main": {"kind": "step"}}, {"main": {"kind": "step"}}),
        ({"main": {"kind": "step", "at": 0.5, "height": 3.0}}, {"main": {"kind": "step", "height": 3.0}}),
        ({"more": {"x": {"kind": "line", "slope": 1.0}}}, {"more": {"x": {"kind": "line"}}}),
    ],
)
def test_settings_inside_settings_are_shown_by_their_fewest_fields(given, fewest):
    made = parse_settings(Curves, given, "curves")
    assert made.changed() == fewest
    assert parse_settings(Curves, fewest, "curves") == made
