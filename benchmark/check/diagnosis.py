"""Why a method cannot be trained, or does not keep the contract: the first cause, in its author's terms.

A method is walked through the beginning of a run one call at a time, and what each call of it returns is looked at
before anything else uses it. Nothing of this runs for a method that trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.check.places import Places
from benchmark.check.trained import Subject, same_state, train
from benchmark.check.verdict import Broken, say
from benchmark.data import Batch
from benchmark.errors import UserError
from benchmark.method import Method
from benchmark.model import MultimodalNet, Outputs
from benchmark.train.evaluation import NonFiniteLogits
from benchmark.train.ownership import TORCHS, UnownedParameters, UnsavedState
from benchmark.train.trainer import Trainer
from benchmark.training import NonFiniteLoss

PREDICTS = "predicts finite logits of the right shape, twice the same"
OWNS = "owns every trainable parameter, at the scheduled rate"
LOADS = "loads for evaluation without a run"
TRAINS = "trains"

HINTS: Mapping[str, str] = {
    "before Module.__init__() call": "begin __init__ with super().__init__(config, task)",
    "a leaf Variable that requires grad": "a parameter is changed in place while gradients are recorded: write "
    "x = x * 2 for x *= 2, or change it under torch.no_grad()",
    "modified by an inplace operation": "something that backward needs was changed in place: write x = x * 2 for "
    "x *= 2, and step the optimizer only after backward",
    "implicitly created only for scalar": "the loss is not one number: take its mean() over the batch",
    "does not require grad": "nothing of the loss depends on a parameter: look for detach(), item(), argmax or "
    "torch.no_grad() on its way",
    "not implemented for 'Long'": "labels stand where logits belong: F.cross_entropy(logits, labels)",
    "backward through the graph a second time": "backward frees what it went through: add the losses and go back "
    "once, or forward again",
    "shapes cannot be multiplied": "a layer expects another width: take widths from the `dims` that a head is given, "
    "or from encoder.dim",
    "has no attribute 'optimizer'": "attach makes it: begin your attach with super().attach(run), or override step too",
    "has no attribute 'run'": "attach keeps it: begin your attach with super().attach(run), or set self.run = run",
}
"""{words of an exception: advice}"""


@dataclass(frozen=True)
class Cause:
    """What keeps a method from being trained."""

    test: str
    """The contract test that it fails."""
    detail: str
    where: str
    """`file:line` of the plugin, or empty."""


def find_cause(subject: Subject, error: Exception) -> Cause:
    """Return the first cause of an exception that ended a method's training.

    Args:
        subject: the method on a task.
        error: what its training raised.
    """
    places = Places(subject.kind)
    walk = Walk(subject, places)
    try:
        walk.whole()
    except Broken as broken:
        return Cause(walk.stage, str(broken), broken.where)
    except Exception as early:  # noqa: BLE001  whatever a plugin raises is the cause
        return _raised(early, walk.stage, places, subject)
    return _raised(error, TRAINS, places, subject)


def _raised(error: Exception, stage: str, places: Places, subject: Subject) -> Cause:
    """Return an exception as a cause, with advice where it is known."""
    where = places.of_error(error)
    if isinstance(error, UnownedParameters):
        attribute = error.attribute.rpartition(".")[2]
        return Cause(
            OWNS, str(error), (places.of_attribute(attribute) if attribute else "") or places.of_method("attach")
        )
    if isinstance(error, UnsavedState):
        return Cause(LOADS, str(error), places.of_attribute(error.attribute) or places.of_method("attach"))
    if isinstance(error, NonFiniteLoss):
        return Cause(
            TRAINS, f"{error}; look for log, a division or sqrt of zero", where or places.of_method("loss", "step")
        )
    if isinstance(error, NonFiniteLogits):
        return Cause(PREDICTS, str(error), where or places.of_method("predict", "build_net"))
    said = say(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".split("\n")[0]
    return Cause(stage, "; ".join(filter(None, [said, advice(error, list(subject.dataset.task.modalities))])), where)


def advice(error: Exception, modalities: list[str]) -> str:
    """Return what to do about an exception, or an empty string."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        names = ", ".join(modalities)
        return f"the modalities of this task are {names}; take names from task.modalities, no fixed ones"
    return next((hint for words, hint in HINTS.items() if words in str(error)), "")


class Walk:
    """A method led through the beginning of a run.

    Attributes:
        stage: the contract test that the call in hand is about.
    """

    def __init__(self, subject: Subject, places: Places) -> None:
        self.subject = subject
        self.places = places
        self.stage = ""

    def whole(self) -> None:
        """Raise `Broken` with the first thing that is wrong, or whatever the method raises."""
        self.stage = "builds a network"
        method = self.subject.build()
        self.builds(method)
        self.stage = "attaches to a run"
        trainer = self.subject.trainer()
        method = trainer.method
        self.attaches(trainer)
        self.stage = "takes a step"
        method.train()
        trainer.run.begin_epoch(0)
        method.start_epoch(0)
        batch = next(iter(method.batches(0)))
        if type(method).step is Method.step:
            self.steps_by_loss(method, batch)
        else:
            self.returns_scalars(method.step(batch))
        self.stage = PREDICTS
        self.predicts(trainer)

    def builds(self, method: Method) -> None:
        """Look at what the constructor made."""
        if not hasattr(method, "_modules") or "net" not in method._modules:
            net = getattr(method, "net", None)
            self.expect_returned("build_net", net, MultimodalNet, "a MultimodalNet")
        self.expect_returned("build_net", method.net, MultimodalNet, "a MultimodalNet")

    def attaches(self, trainer: Trainer) -> None:
        """Look at what `attach` made."""
        method, where = trainer.method, self.places.of_method("attach")
        if not hasattr(method, "run"):
            raise Broken(
                "attach does not keep the run: begin it with super().attach(run), or set self.run = run", where
            )
        if not trainer.run.optimizers:
            own = [key for key, value in vars(method).items() if isinstance(value, torch.optim.Optimizer)]
            made = f", self.{own[0]} is not from there" if own else ""
            raise Broken(
                f"no optimizer is from run.optimizer(params){made}: others are neither scheduled nor saved",
                (self.places.of_attribute(own[0]) if own else "") or where,
            )

    def steps_by_loss(self, method: Method, batch: Batch) -> None:
        """Take the default step, a call at a time."""
        out = method.net(batch.inputs)
        self.expect_returned("forward", out, Outputs, "Outputs(features, unimodal, fused)", "build_net")
        expected = (len(batch.labels), self.subject.dataset.task.num_classes)
        if tuple(out.fused.shape) != expected:
            raise Broken(
                f"the head's fused logits: expected {expected}, got {tuple(out.fused.shape)}",
                self.at("forward", "build_net"),
            )
        loss = method.loss(out, batch)
        self.expect_returned("loss", loss, Tensor, "a tensor")
        at = self.at("loss")
        if loss.ndim:
            raise Broken(f"loss: expected one number, got {tuple(loss.shape)}; take its mean() over the batch", at)
        if not loss.requires_grad:
            raise Broken(f"loss has no gradient: {HINTS['does not require grad']}", at)
        if not bool(torch.isfinite(loss)):
            raise Broken(f"loss is {float(loss)} in the first step; look for log, a division or sqrt of zero", at)
        method.optimizer.zero_grad()
        method.run.backward(loss)
        method.edit_gradients(out, batch)
        method.optimizer.step()

    def returns_scalars(self, scalars: Any) -> None:
        """Look at what a step of the method's own returned."""
        self.expect_returned("step", scalars, Mapping, "a dict of scalars as {'loss': loss.detach()}")
        for name, value in scalars.items():
            if isinstance(value, Tensor) and value.ndim:
                said = f"step, {name!r}: expected a scalar, got {tuple(value.shape)}; take its mean()"
                raise Broken(said, self.at("step"))

    def predicts(self, trainer: Trainer) -> None:
        """Look at what `predict` returns."""
        method, task = trainer.method, self.subject.dataset.task
        method.eval()
        with torch.no_grad():
            logits = method.predict(next(trainer.feeds.test.in_order()))
        at = self.at("predict", "build_net")
        self.expect_returned("predict", logits, Mapping, "a dict as {'fused': logits}")
        if "fused" not in logits:
            raise Broken(f"predict: expected 'fused' among its keys, got {', '.join(map(repr, logits)) or 'none'}", at)
        expected = (len(trainer.feeds.test), task.num_classes)
        for head, values in logits.items():
            if not isinstance(values, Tensor) or tuple(values.shape) != expected:
                got = tuple(values.shape) if isinstance(values, Tensor) else f"a {type(values).__name__}"
                raise Broken(f"predict, {head!r}: expected logits (samples, classes) = {expected}, got {got}", at)
            if not bool(torch.isfinite(values).all()):
                raise Broken(f"predict, {head!r}: NaN or infinity", at)

    def expect_returned(self, method: str, value: Any, kind: type, expected: str, *others: str) -> None:
        """Raise `Broken` unless a method returned what it must."""
        if value is None:
            raise Broken(
                f"{method} returned nothing, expected {expected}: end it with `return`", self.at(method, *others)
            )
        if not isinstance(value, kind):
            raise Broken(f"{method}: expected {expected}, got a {type(value).__name__}", self.at(method, *others))

    def at(self, *methods: str) -> str:
        return self.places.of_method(*methods)


# --- what trains and does not repeat -------------------------------------------------------------------------------


def explain_resuming(subject: Subject) -> Broken | None:
    """Return why a run that is stopped and resumed after an epoch goes on otherwise, if that can be told."""
    whole, places = subject.trainer(), Places(subject.kind)
    train(whole, 1)
    resumed = subject.resumed(1)
    own = [key for key, value in vars(whole.method).items() if _is_foreign(value, whole)]
    if own:
        said = f"self.{own[0]} is not from run.optimizer, so what it remembers (momentum) is not saved"
        return Broken(said, places.of_attribute(own[0]))
    for key, (kept, lost) in _differences(whole.method, resumed.method).items():
        said = (
            f"self.{key} is {kept} after the first epoch and {lost} when the run is resumed there: keep it in a buffer "
        )
        said += "made in __init__, or return it from get_extra_state and take it in set_extra_state"
        return Broken(said, places.of_attribute(key.rpartition(".")[2]))
    control = subject.trainer()
    train(control, 1)
    for parameter in whole.method.parameters():
        parameter.grad = None
    if train(control) == subject.trained.history[1:] != train(whole):
        said = "gradients of one step are still there in the next: call self.optimizer.zero_grad() before run.backward"
        return Broken(said, places.of_call("self.run.backward", "run.backward") or places.of_method("step"))
    return None


def _is_foreign(value: Any, trainer: Trainer) -> bool:
    return isinstance(value, torch.optim.Optimizer) and not any(value is one for one in trainer.run.optimizers)


def _differences(one: nn.Module, other: nn.Module) -> dict[str, tuple[str, str]]:
    """Return the plain values and tensors that two methods keep beside their state and that differ, in words."""
    found = {}
    others = dict(other.named_modules())
    for name, module in one.named_modules():
        for key, value in vars(module).items():
            theirs = vars(others.get(name, module)).get(key)
            if (
                key not in TORCHS
                and _is_plain(value)
                and not (_is_plain(theirs) and same_state({"": value}, {"": theirs}))
            ):
                found[f"{name}.{key}" if name else key] = (_words(value), _words(theirs))
    return found


def _is_plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Mapping):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
    return isinstance(value, int | float | str | Tensor | None)


def _words(value: Any) -> str:
    text = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


CHANCE = (
    "time.",
    "random.",
    "np.random.",
    "numpy.random.",
    "torch.seed",
    "torch.Generator",
    "uuid.",
    "secrets.",
    "os.urandom",
)
"""Calls by which the same seed may come to give other numbers."""


def explain_chance(subject: Subject) -> Broken:
    """Return why the same seed gives other numbers."""
    where = Places(subject.kind).of_call(*CHANCE)
    said = (
        "the same seed gives another history: draw from torch's global generator, which is seeded before each epoch, "
    )
    return Broken(
        said + "and depend on no clock and on nothing that outlives a run, as globals and class attributes do", where
    )
