"""MSLR: modality-specific learning rates for additive late fusion.

    z = sum over m of z_m,    loss = CE(z, y),    rate of modality m = r_m * the protocol's rate

for its encoder and its linear layer. Strategies for r_m, of the paper's three:

    keep       r_m stays as given, in the proportions of what was best for each modality alone
    dynamic    every N epochs  r_m <- r_m * acc_m(t) / mean of acc_m(t-N .. t-1),    acc_m on a held-out share of train

A share of the epochs at the start trains each modality by a loss of its own, as `late_sum` does. One forward and one
backward pass; `dynamic` adds a forward pass over the held-out share each epoch.

Paper: By Yao and Mihalcea. Only the abstract was available: additive late fusion of fine-tuned unimodal models, three
strategies for rates.

Released code: None of the authors'; AGM's repository has an MSLR of its own. Accuracies on *test*; from the sixth epoch
on r_m = r_m(0) * acc_m / mean of the five before, anew in every epoch, so that nothing accumulates; r(0) is 0.9 for
audio and 1.1 for video on CREMA-D. r scales gradients, and so not weight decay. No unimodal models before.

Ours: `paper` lets ratios accumulate every N epochs, as an account of the paper has it; `smart` is a sweep over `rates`;
unimodal training takes the first 0.3 of the epochs, in the place of fine-tuned models. `released` is AGM's rule, with
accuracies of a share held out of train in the place of test; r(0) is a preset of CREMA-D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import LateHead, MultimodalNet, Outputs, summed_cross_entropy
from benchmark.training import Run

from ._held_out import held_out_mean


def adjusted(rate: float, accuracies: Sequence[float], limit: float | None = None) -> float:
    """Return a rate times the last accuracy over the mean of those before, between 1 / limit and limit if one is set.

    Without any accuracy before, all being 0, the rate stays.
    """
    *window, last = accuracies
    before = sum(window) / len(window)
    rate = rate * last / before if before else rate
    return rate if limit is None else min(max(rate, 1 / limit), limit)


class MSLR(Method):
    reference = Reference(
        "Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion",
        "Findings of ACL",
        2022,
        "lihong2303/AGM_ICCV2023 @ 5a65542 : run/CREMAD_main.py",
    )
    off_switches = (
        OffSwitch({"strategy": "keep", "pretrain": 0.0}, "sum"),
        OffSwitch({"strategy": "keep", "pretrain": 1.0}, "late_sum"),
    )
    version = 2
    variants = (
        {},
        {"every": 1, "pretrain": 0.0},
        {"strategy": "keep", "rates": {"audio": 0.5}},
        {"variant": "released", "every": 1},
    )
    ablations = ({"strategy": "keep"},)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"rates": {"audio": 0.9, "video": 1.1}}}
    """AGM's repository, run/CREMAD_main.py."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="reconstructed",
        code_test="test_released_rates_follow_the_lines_of_the_released_code",
        paper_test="test_golden_changes",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"accumulate": False, "scales": "gradient", "pretrain": 0.0}

        strategy: Literal["keep", "dynamic"] = "dynamic"
        """Keep the rates or follow each modality's accuracy (paper: both are tried)."""
        rates: dict[str, Annotated[float, Field(gt=0)]] = {}
        """r of each modality at the start, 1 where not named (ours: what is best alone must be found by a sweep)."""
        every: int = Field(default=5, ge=1)
        """Epochs between changes of a rate, N, and epochs of the mean (AGM's repository)."""
        accumulate: bool = True
        """Multiply a rate by its ratio every N epochs; False takes the first rate times the ratio in every epoch, once
        N have passed (AGM's repository)."""
        scales: Literal["rate", "gradient"] = "rate"
        """What r scales: the learning rate, and so weight decay too, or gradients alone (AGM's repository)."""
        limit: float | None = Field(default=None, ge=1)
        """Largest r, and one over the smallest (ours; None for no bounds, as the rule has none)."""
        pretrain: float = Field(default=0.3, ge=0, le=1)
        """Share of the epochs in which each modality trains alone before they are fused (ours: within the budget of
        all methods, instead of fine-tuned models from before)."""
        held_out: float = Field(default=0.1, gt=0, lt=1)
        """Share of train on which `dynamic` measures accuracies (ours)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(*self.rates)

    config: Config
    net: MultimodalNet[LateHead]

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        if config.strategy == "dynamic":
            self.held_out_share = config.held_out
        self.rates = {m: config.rates.get(m, 1.0) for m in task.modalities}
        self.accuracies: dict[str, list[float]] = {m: [] for m in task.modalities}

    def build_net(self, task: TaskSpec) -> MultimodalNet[LateHead]:
        return MultimodalNet(task.build_encoders(), lambda dims: LateHead(dims, task.num_classes))

    def attach(self, run: Run) -> None:
        """Make one group of parameters for each modality, in the task's order."""
        self.run = run
        self.fused_epoch = int(self.config.pretrain * run.epochs)
        first, *rest = (list(self.parts(m).parameters()) for m in self.rates)
        self.optimizer = run.optimizer(first)
        for params in rest:
            run.add_parameters(self.optimizer, params)

    def parts(self, modality: str) -> nn.ModuleList:
        """Return what is a modality's own: its encoder and its linear layer."""
        return nn.ModuleList([self.net.encoders[modality], self.net.head.layers[modality]])

    def start_epoch(self, epoch: int) -> None:
        self.fuses = epoch >= self.fused_epoch

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if self.fuses:
            return super().loss(out, batch)
        return summed_cross_entropy(out.unimodal, batch.labels)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.scales == "gradient":
            return super().step(batch)
        with self.own_rates():
            return super().step(batch)

    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        if self.config.scales == "gradient":
            for modality, rate in self.rates.items():
                for parameter in self.parts(modality).parameters():
                    if parameter.grad is not None:
                        parameter.grad *= rate

    @contextmanager
    def own_rates(self) -> Iterator[None]:
        """Scale the scheduled rates by those of the modalities for the time being."""
        groups = self.optimizer.param_groups
        scheduled = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates.values(), strict=True):
            group["lr"] *= rate
        try:
            yield
        finally:
            for group, lr in zip(groups, scheduled, strict=True):
                group["lr"] = lr

    def end_epoch(self, epoch: int) -> None:
        self.run.log(**{f"rate/{m}": rate for m, rate in self.rates.items()})
        if self.config.strategy == "keep" or not self.fuses:
            return
        for modality, accuracy in self.held_out_accuracies(epoch).items():
            noted = self.accuracies[modality] = [*self.accuracies[modality], accuracy][-self.config.every - 1 :]
            due = not self.config.accumulate or (epoch - self.fused_epoch) % self.config.every == 0
            if len(noted) > self.config.every and due:
                before = self.rates[modality] if self.config.accumulate else self.config.rates.get(modality, 1.0)
                self.rates[modality] = adjusted(before, noted, self.config.limit)

    def held_out_accuracies(self, epoch: int) -> dict[str, float]:
        """Return the accuracy of each modality's logits on the held-out share."""
        return held_out_mean(self, epoch, lambda logits, labels: (logits.argmax(1) == labels).sum())

    def get_extra_state(self) -> dict[str, Any]:
        return {"rates": dict(self.rates), "accuracies": {m: list(noted) for m, noted in self.accuracies.items()}}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.rates, self.accuracies = dict(state["rates"]), dict(state["accuracies"])
