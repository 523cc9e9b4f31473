"""Contract tests of a method, on synthetic tasks of two and three modalities."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmark.check.diagnosis import LOADS, OWNS, PREDICTS, explain_chance, explain_resuming, find_cause
from benchmark.check.epoch_end import untrained
from benchmark.check.places import Places
from benchmark.check.synthetic import Blobs
from benchmark.check.trained import CPU, RECIPE, Subject, Subjects, train
from benchmark.check.verdict import Broken, Result, judge, require
from benchmark.data import Dataset
from benchmark.method import Method, OffSwitch
from benchmark.registry import METHODS, Plugin
from benchmark.settings import check_settings, parse_settings
from benchmark.train.evaluation import predict, score
from benchmark.train.trainer import Trainer, build_method
from benchmark.training import Run


def check_method(plugin: Plugin, subjects: Subjects | None = None) -> Iterator[Result]:
    """Run the contract tests of a method on synthetic tasks of two and three modalities.

    Args:
        plugin: the method.
        subjects: what earlier calls trained, if they share it; says how thorough the tests are. Default: thorough,
            which imports the method in an interpreter of its own, stops and resumes it after each single epoch, and
            trains it on three modalities also where two are enough.
    """
    subjects = subjects or Subjects()
    if subjects.thorough:
        yield judge("imports alone", partial(_imports_alone, plugin))
    kind = plugin.load()
    places = Places(kind)
    yield judge("has a reference", partial(_has_reference, kind), places)
    yield judge("settings are documented", partial(_documented, kind, places), places)
    variants = kind.variants if any(kind.variants) else ()
    sound = True
    for name, several in {"presets": kind.presets.values(), "ablations": kind.ablations, "variants": variants}.items():
        if several:
            result = judge(
                f"{name} are settings that it has", partial(_settings_exist, kind, plugin.name, several), places
            )
            yield result
            sound &= name != "variants" or not result.failed
    if sound:
        yield from _on_tasks(plugin.name, kind, places, subjects)


def _on_tasks(name: str, kind: type[Method], places: Places, subjects: Subjects) -> Iterator[Result]:
    """Test a method on tasks of two and three modalities, in each of its variants."""
    told, total = _Told(), 0
    for count in (2, 3):
        dataset = Blobs(Blobs.Config(num_modalities=count))
        title = f"{count} modalities"
        chosen: list[tuple[str, Subject, str | None]] = []
        resolved = judge(
            f"{title}: says what it supports", partial(_resolve, name, kind, dataset, title, subjects, chosen), places
        )
        if resolved.failed:
            yield told.once(resolved)
        trained = True
        for variant, subject, reason in chosen:
            if reason is not None:
                yield Result(variant, "n/a", reason)
                continue
            for result in _tested(variant, subject, places):
                trained &= result.verdict != "n/a"
                yield told.once(result)
        supported = sum(reason is None for *_, reason in chosen)
        total += supported + resolved.failed
        for switch in kind.off_switches if supported and trained else ():
            test = f"{title}: off-switch {dict(switch.config)} equals {switch.equals}"
            yield told.once(judge(test, partial(_off, subjects, kind, dataset, switch), places, "loss", "step"))
        if total and not subjects.thorough:
            break
    if not total:
        said = "expected support for two or three modalities, got a reason for both"
        yield Result("supports some task", "fail", said, places.of_method("unsupported"))


def _resolve(
    name: str,
    kind: type[Method],
    dataset: Blobs,
    title: str,
    subjects: Subjects,
    chosen: list[tuple[str, Subject, str | None]],
) -> None:
    """Add the variants of a method on a task to `chosen`: title, subject, and why it is not defined there."""
    for variant in [{**one, **other} for one in kind.expand(dataset.task) for other in kind.variants]:
        config = parse_settings(kind.Config, variant, f"method {name}")
        subject = subjects.find(kind, config, dataset)
        chosen.append((title + f" {dict(variant)}" * bool(variant), subject, kind.unsupported(config, dataset.task)))


class _Told:
    """Says a failure in full once; where it comes again, only that it does."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], str] = {}

    def once(self, result: Result) -> Result:
        """Return a result, without what an earlier one has said."""
        title, _, test = result.name.partition(": ")
        first = self._first.setdefault((test, result.where or result.detail), title) if result.failed else title
        return result if first == title else replace(result, detail=f"as with {first}")


def _tested(title: str, subject: Subject, places: Places) -> Iterator[Result]:
    """Run all tests; where the method cannot be trained, only say why."""
    try:
        subject.trained  # noqa: B018  trains it
    except Exception as error:  # noqa: BLE001  whatever a plugin raises is its verdict
        cause = find_cause(subject, error)
        yield Result(f"{title}: {cause.test}", "fail", cause.detail, cause.where)
        others = len(METHOD_TESTS) - (cause.test in METHOD_TESTS)
        yield Result(f"{title}: {others} other tests", "n/a", "not run before this is mended")
        return
    follows: dict[str, str] = {}
    for name, test in METHOD_TESTS.items():
        if name in follows:
            yield Result(f"{title}: {name}", "n/a", f"follows from: {follows[name]}")
            continue
        result = judge(f"{title}: {name}", partial(test, subject), places, *ABOUT.get(name, ()))
        if result.failed:
            follows.update(dict.fromkeys(FOLLOWS.get(name, ()), name))
        yield result


def _has_reference(kind: type[Method]) -> None:
    reference = getattr(kind, "reference", None)
    require(bool(reference and reference.title), "expected `reference = Reference(title, venue, year)` in the class")


def _imports_alone(plugin: Plugin) -> None:
    code = f"import runpy; runpy.run_path({plugin.source!r})" if plugin.is_file else f"import {plugin.source}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    require(done.returncode == 0, f"a fresh interpreter could not import it: {done.stderr.strip().splitlines()[-1:]}")


def _settings_exist(kind: type[Method], name: str, several: Iterable[Mapping[str, Any]]) -> None:
    for settings in several:
        check_settings(kind.Config, settings, f"method {name}")


def _documented(kind: type[Method], places: Places) -> None:
    bare = [name for name, field in kind.Config.model_fields.items() if not field.description]
    require(
        not bare,
        f"expected a string under each setting with its meaning and source, got none for {', '.join(bare)}",
        places.of_name(bare[0]) if bare else "",
    )


def _round_trip(subject: Subject) -> None:
    values = json.loads(subject.config.model_dump_json())
    require(parse_settings(type(subject.config), values, "config") == subject.config, "config changes in a round trip")


def _predicts(subject: Subject) -> None:
    seen = subject.trained
    task, count = subject.dataset.task, len(seen.trainer.feeds.test)
    logits, again = seen.predicted_twice
    require("fused" in logits, f"predict: expected 'fused', got {sorted(logits)}")
    require(set(logits) <= {"fused", *task.modalities}, f"predict: expected names of modalities, got {sorted(logits)}")
    for head, values in logits.items():
        expected = (count, task.num_classes)
        require(tuple(values.shape) == expected, f"{head}: expected shape {expected}, got {tuple(values.shape)}")
        require(torch.equal(values, again[head]), f"{head}: predict gives another result the second time")


def _trains_encoders(subject: Subject) -> None:
    still = set(subject.trained.trainer.method.net.encoders) - subject.trained.moved
    require(not still, f"expected every encoder to change in an epoch, got no change for {', '.join(sorted(still))}")


def _owns_parameters(subject: Subject) -> None:
    for expected, got in subject.trained.rates:  # training itself raises for unowned parameters
        require(got == expected, f"learning rate: expected {expected}, got {got}")


def _deterministic(subject: Subject) -> None:
    if not subject.thorough and subject.same_in_pieces:
        return  # trained a second time, from the same seed to the same bits
    other = subject.trainer()
    if train(other) != subject.trained.history or not subject.ends_like(other):
        raise explain_chance(subject)


def _resumes(subject: Subject) -> None:
    if not subject.same_in_pieces:
        said = "stopped and resumed after each epoch, it differs from an uninterrupted run"
        raise explain_resuming(subject) or Broken(said)
    for cut in range(1, RECIPE.epochs) if subject.thorough else ():
        trainer = subject.resumed(cut)
        require(
            train(trainer) == subject.trained.history[cut:],
            f"resumed after epoch {cut}, the history differs from an uninterrupted run",
        )
        same = subject.ends_like(trainer)
        require(same, f"resumed after epoch {cut}, the weights differ from an uninterrupted run")


def _loads_for_evaluation(subject: Subject) -> None:
    trainer = subject.trained.trainer
    method = build_method(subject.kind, subject.config, subject.dataset.task, RECIPE, 1, CPU)
    method.load_state_dict(trainer.method.state_dict())
    for head, values in predict(trainer.method, trainer.feeds.test).items():
        same = torch.equal(values, predict(method, trainer.feeds.test)[head])
        require(same, f"{head}: a method loaded without a run predicts otherwise")


def _sees_batches(subject: Subject) -> str:
    trainer, served = subject.trained.trainer, subject.trained.served
    expected = [batch.index for batch in Run.train_batches(trainer.run, 0)]
    if trainer.method.held_out_share:
        return f"holds out {trainer.method.held_out_share:.0%} of train"
    if type(trainer.method).batches is not Method.batches or len(served) > len(expected):
        return f"serves {sum(map(len, served))} samples an epoch where the plain loop serves {sum(map(len, expected))}"
    require(
        len(served) == len(expected) and all(map(torch.equal, served, expected)), "other batches than the plain loop"
    )
    return ""


def _learns(subject: Subject) -> str:
    above = 1 / subject.dataset.task.num_classes + 0.3
    accuracy = _accuracy(subject.trained.trainer)
    if accuracy <= above:  # a method of several stages may need them all
        longer = subject.trainer(RECIPE.model_copy(update={"epochs": 10}))
        train(longer)
        accuracy = _accuracy(longer)
    require(accuracy > above, f"expected over {above:.2f} on separable data, got {accuracy:.2f}")
    return f"accuracy {accuracy:.2f}"


def _accuracy(trainer: Trainer) -> float:
    return score(trainer.test_logits, trainer.feeds.test.labels)["fused"]["accuracy"]


def _evaluation_is_pure(subject: Subject) -> None:
    require(subject.trained.evaluates_alike, "evaluation changes the method's state")
    require(subject.trained.trainer.method.training, "evaluation leaves the method in eval mode")


def _scores_what_was_trained(subject: Subject) -> None:
    for epoch in sorted(subject.trained.ends):
        names = untrained((subject.before(epoch), subject.before(epoch)))
        require(
            not names,
            f"end_epoch({epoch}) changes predictions by what had no training step, so it is scored as drawn: "
            f"{', '.join(names)}. Let a network grow, and draw weights, in start_epoch",
        )


def _cannot_see_test(subject: Subject) -> None:
    trainer = subject.trained.trainer
    test = trainer.feeds.test
    secret = {id(x) for x in (test, test.labels, *next(test.in_order()).values())}
    seen: set[int] = set()
    stack: list[Any] = [trainer.method, trainer.run]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type | types.ModuleType | types.FunctionType | types.FrameType):
            continue
        seen.add(id(item))
        require(id(item) not in secret, "the test split can be reached from the method or its run")
        stack.extend(gc.get_referents(item))


METHOD_TESTS: dict[str, Callable[[Subject], str | None]] = {
    "config round-trips": _round_trip,
    PREDICTS: _predicts,
    "gradients reach every encoder": _trains_encoders,
    OWNS: _owns_parameters,
    "same seed, same bits": _deterministic,
    "interrupted and resumed equals uninterrupted": _resumes,
    LOADS: _loads_for_evaluation,
    "sees the batches of the plain loop": _sees_batches,
    "beats chance on separable data": _learns,
    "evaluation changes no training state": _evaluation_is_pure,
    "scores what was trained": _scores_what_was_trained,
    "cannot see the test split": _cannot_see_test,
}

ABOUT: Mapping[str, Sequence[str]] = {
    "config round-trips": (),
    PREDICTS: ("predict", "build_net"),
    "gradients reach every encoder": ("loss", "step", "build_net"),
    OWNS: ("step", "attach"),
    "same seed, same bits": ("loss", "step"),
    "interrupted and resumed equals uninterrupted": ("step", "loss", "attach"),
    LOADS: ("attach", "predict"),
    "sees the batches of the plain loop": ("batches", "attach", "step"),
    "beats chance on separable data": ("loss", "step", "predict"),
    "evaluation changes no training state": ("predict",),
    "scores what was trained": ("end_epoch", "start_epoch"),
    "cannot see the test split": ("attach", "step"),
}
"""{test: methods of the plugin to look at, the likeliest first}"""

FOLLOWS: Mapping[str, Sequence[str]] = {
    PREDICTS: (
        "same seed, same bits",
        "interrupted and resumed equals uninterrupted",
        LOADS,
        "evaluation changes no training state",
    ),
    "same seed, same bits": ("interrupted and resumed equals uninterrupted",),
}
"""{test: tests that fail where it does}"""


def _off(subjects: Subjects, kind: type[Method], dataset: Dataset, switch: OffSwitch) -> None:
    baseline = METHODS.find(switch.equals).load()
    off = subjects.find(kind, parse_settings(kind.Config, switch.config, "off-switch"), dataset)
    plain = subjects.find(baseline, parse_settings(baseline.Config, switch.baseline, "baseline"), dataset)
    ours, theirs = ([_scores(line) for line in subject.trained.history] for subject in (off, plain))
    require(ours == theirs, "switched off, it does not equal its baseline bit for bit")


def _scores(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key in ("valid", "test")}
