"""The contract of a method: it owns its training step; the trainer owns everything else.

A method is one file in `methods/` (or anywhere: `--methods ./mine.py`) with one subclass of `Method`.
Override the smallest thing that expresses the paper: `loss`, else `edit_gradients`, else `step`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.model import MultimodalNet, Outputs
from benchmark.settings import Settings

if TYPE_CHECKING:
    from benchmark.training import Run


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    title: str
    venue: str = ""
    year: int | None = None
    code: str = ""
    """Official repository @ commit : file, or empty if none was released."""


@dataclass(frozen=True)
class OffSwitch:
    """Settings under which a method must equal a simpler one bit for bit. `bench check` proves it."""

    config: Mapping[str, Any]
    equals: str
    """Name of the method that it then equals."""
    baseline: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that method."""


@dataclass(frozen=True)
class Ledger:
    """How far an implementation can be trusted, by the released code and by the paper: a row of the ledger report.

    What paper, released code and ours do is said once, by the docstring of the method's file, in three parts that begin
    with `Paper:`, `Released code:` and `Ours:`, a few sentences each, with figures. `Released code` says "no code", or
    why it cannot run; `Ours` says what it was checked against.
    """

    code: Literal["verified on the same tensors", "not compared", "cannot run", "no code"]
    """How ours was held against the released code: official functions and ours gave the same numbers on the same
    tensors; there is code, but ours is another algorithm; it cannot run as released; none was released."""
    paper: Literal["verified from text", "from abstract or memory", "reconstructed", "no paper"]
    """How the paper was known: read; its abstract, an account of it or memory alone; what it leaves open is filled in
    by us; a baseline of nobody's."""
    code_test: str = ""
    """The test that shows it for the code: `test_x` in `tests/methods/test_NAME.py`, or `FILE::test_x`."""
    paper_test: str = ""
    """The same for the paper's formulas."""


class Method(nn.Module, ABC):
    """One way to train a multimodal network.

    Must set: `reference`. Must implement: `build_net`. May override: `expand`, `attach`, `start_epoch`, `batches`,
    `end_epoch`, `step`, `loss`, `edit_gradients`, `predict`, `get_extra_state` and `set_extra_state`; in its `Config`
    also `unsupported` and `refuse`. Must not know: the test split, other methods, files, devices, the schedule.

    State that matters between epochs lives in parameters, buffers, or the extra state (plain values and
    tensors). `set_extra_state` runs before the children's parameters are loaded, so it is the place to grow again
    what had grown, in the same order.
    """

    reference: ClassVar[Reference]
    version: ClassVar[int] = 1
    """Version of the numbers that the method makes: raise it when they change. Part of a run's id."""
    modalities: ClassVar[tuple[int, int | None]] = (1, None)
    """The smallest and the largest number of modalities that it is defined for; None for no limit."""
    off_switches: ClassVar[Sequence[OffSwitch]] = ()
    variants: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    """Settings under each of which `bench check` tests the contract."""
    ablations: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Settings that each take away or change one part: the rows of `bench ablate` under the method as it is."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """{data set: settings that the literature uses there}, for `--presets`."""
    ledger: ClassVar[Ledger | None] = None
    """What its row of the ledger report adds to the docstring."""
    held_out_share: float = 0.0
    """Part of train set aside for `Run.held_out_batches`; may be set in `__init__`."""

    class Config(Settings):
        """The method's hyperparameters. Under each: meaning, unit, source of the default."""

        def unsupported(self, task: TaskSpec) -> str | None:
            """Return why the method with these settings is not defined for a task, or None if it is.

            How many modalities it takes whatever the settings is declared by `Method.modalities`.
            """
            return None

        def refuse(self, epochs: int) -> str | None:
            """Return what is wrong with the settings for a run of so many epochs, or None: told before any starts."""
            return None

    config: Config
    run: Run

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "refuse" in vars(cls):  # nobody would call it
            raise TypeError(f"refuse(epochs) belongs to {cls.__name__}.Config since 0.2.0, not to {cls.__name__}")

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__()
        self.config = config
        self.task = task
        self.net = self.build_net(task)

    @classmethod
    def unsupported(cls, config: Config, task: TaskSpec) -> str | None:
        """Return why the method is not defined for this task and config, or None if it is."""
        count, (minimum, maximum) = len(task.modalities), cls.modalities
        if minimum <= count and (maximum is None or count <= maximum):
            return config.unsupported(task)
        span = f"{spell(minimum)} or more" if maximum is None else " to ".join(map(spell, sorted({minimum, maximum})))
        return f"defined for {span} modalities"

    @classmethod
    def expand(cls, task: TaskSpec) -> Sequence[Mapping[str, Any]]:
        """Return the settings that the method's bare name means on a task, one mapping for each run."""
        return ({},)

    @abstractmethod
    def build_net(self, task: TaskSpec) -> MultimodalNet:
        """Return the network: the task's encoders under this method's head."""

    def attach(self, run: Run) -> None:
        """Take the run; called once, after the move to the device. Default: one optimizer over the net."""
        self.run = run
        self.optimizer = run.optimizer(self.net.parameters())

    def train_also(self, params: Iterable[nn.Parameter]) -> None:
        """Train parameters made after `attach`, from now on at the current rate.

        Does nothing without a run, when the method is loaded for evaluation.
        """
        if hasattr(self, "run"):
            self.run.add_parameters(self.optimizer, params)

    def train_instead(self, replaced: Iterable[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Train parameters that grew out of others (old, new) in their place; does nothing without a run."""
        if hasattr(self, "run"):
            for old, new in replaced:
                self.run.replace_parameter(self.optimizer, old, new)

    def start_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch (counted from 0)."""

    def batches(self, epoch: int) -> Iterable[Batch]:
        """Return what the steps of an epoch train on, a batch for each. Default: train once, in random order."""
        return self.run.train_batches(epoch)

    def end_epoch(self, epoch: int) -> None:
        """Called after the last batch of an epoch, before evaluation."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch, with any number of optimizer steps.

        Returns:
            Scalars to average over the epoch (detached, on the device: no `.item()` here).
        """
        out = self.net(batch.inputs)
        loss = self.loss(out, batch)
        self.optimizer.zero_grad()
        self.run.backward(loss)
        self.edit_gradients(out, batch)
        self.optimizer.step()
        return {"loss": loss.detach(), **unimodal_losses(out, batch)}

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Return the scalar that the default step minimises. Default: cross-entropy of the fused logits."""
        return F.cross_entropy(out.fused, batch.labels)

    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        """Change gradients between backward and the optimizer's step. Default: leave them."""

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return logits {"fused": (B, K), <modality>: (B, K)}. Called in eval mode, without gradients."""
        out = self.net(inputs)
        return {"fused": out.fused, **out.unimodal}


class Variants(Method.Config):
    """Settings of a method whose released code does something else than its paper says."""

    released: ClassVar[Mapping[str, Any]] = {}
    """What `variant=released` sets, where nothing else is given."""

    variant: Literal["paper", "released"] = "paper"
    """Whether to follow the paper or the released code where they differ; settings of their own change single
    differences."""

    @model_validator(mode="before")
    @classmethod
    def _follow_variant(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**cls.released, **values} if values.get("variant") == "released" else values


def spell(number: int) -> str:
    """Return a small number as a word."""
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(number, str(number))


def load_parts(config: Method.Config) -> list[type[Method]]:
    """Return the methods that settings name as parts (`Settings.parts`), for one that is made of others.

    Raises:
        UserError: when there is no such method.
    """
    from benchmark.registry import METHODS

    return [METHODS.find(name).load() for name in config.parts]


@torch.no_grad()
def unimodal_losses(out: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return the cross-entropy of each modality's own logits, as `loss/<modality>`: the same names in every method."""
    return {f"loss/{m}": F.cross_entropy(z, batch.labels) for m, z in out.unimodal.items()}
