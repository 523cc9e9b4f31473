"""AUG: boost the weak modality's classifier until the modalities classify equally well.

A modality m has classifiers j = 1..n with logits z_j = output(relu(hidden_mj(u_m))); all share one output layer.
With S_k the sum of the first k logits and p_j = softmax(z_j), its loss is

    n = 1:   CE(S_1, y)
    n > 1:   CE(S_n, y)  +  CE(S_{n-1}, y)  +  mean (1 - lambda * q) * CE(z_n, y),    q = sum_{j<n} p_j[y]
             overall        maintenance        residual

Every few epochs the confident scores s_m over train are compared, and a modality that lags gets one more classifier
before the next epoch begins, so that none is scored untrained.

Paper: By Jiang, Huang and Yang; read in full but for appendix and tables. Residual labels can fall below zero from four
classifiers on; the loss then has no lower bound. The score is a mean of y^T (sum_j p_j); t_N is a tenth of the epochs.

Released code: Added classifiers are in no optimizer and move by exactly 0; a score is softmax(S_n)[y], and scores are
compared by ratio; modalities step in turn; fused logits are 0.4 audio + 0.6 video. It validates before it adds. The
learning rate falls an epoch early and the best epoch is chosen on test, which belongs to the protocol (`aug2025`).
The first commit (966dbf5) has scripts for Kinetics-Sounds and NVGesture, too, with lambda 0.2: fused logits of three
are 0.33, 0.33 and 0.34; a sigmoid network gates added classifiers; weights start as torch draws them on NVGesture,
where I3D comes from Kinetics, which its depth encoder of one channel cannot load, so that it does not run as released.

Ours: Both, as variants, and each difference as a setting (`gate` is off unless set, or by `--presets`); residual labels
are kept at zero or more (`clamp`), without which training diverges. `paper` reads p_j in the score as in the residual
label, each classifier's own: a sum of up to n, which a classifier that is added can raise whatever the modality
predicts. Checked by the paper's invariants against independent calculations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import MultimodalNet, Outputs, SharedOutputHead, draw_weights, sum_logits, true_class_probability
from benchmark.training import Run

from ._schedule import tenth

log = logging.getLogger(__name__)

TRIMODAL_RATIO = 0.4
"""A modality lags if its score is below this part of the sum of the others (released NVGesture script)."""


def summed_probabilities(each: Tensor, labels: Tensor) -> Tensor:
    """Return sum_j softmax(z_j)[y] (B,) of n classifiers' logits (B, n, K); up to n."""
    probabilities = each.softmax(2)
    return probabilities.gather(2, labels[:, None, None].expand(-1, each.shape[1], 1)).sum((1, 2))


def probability_of_sum(each: Tensor, labels: Tensor) -> Tensor:
    """Return softmax(sum_j z_j)[y] (B,) of n classifiers' logits (B, n, K); at most 1."""
    return true_class_probability(each.sum(1), labels)


RESIDUALS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "paper": summed_probabilities,
    "released": probability_of_sum,
}
"""How much of the label the previous classifiers have explained, q."""
SCORES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "literal": summed_probabilities,
    "summed": probability_of_sum,
}
"""A sample's part of a modality's confident score."""


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return mean(weight * CE): soft cross-entropy against labels that keep `weight` (B,) of the true class."""
    return (weight * F.cross_entropy(logits, labels, reduction="none")).mean()


def lags_by_difference(scores: Mapping[str, float], sigma: float, tau: float) -> list[str]:
    """Return which modalities need a classifier: those with s_other - sigma * s_m > tau.

    Of three modalities s_other is the mean of the others; of two only the further behind is returned.
    """
    gaps = {m: (sum(scores.values()) - s) / (len(scores) - 1) - sigma * s for m, s in scores.items()}
    behind = [m for m in sorted(gaps, key=lambda m: -gaps[m]) if gaps[m] > tau]
    return behind[:1] if len(scores) == 2 else behind


def lags_by_ratio(scores: Mapping[str, float], sigma: float, tau: float) -> list[str]:
    """Return which modalities need a classifier by the ratio of two scores, or of each to the sum of the others."""
    if len(scores) > 2:
        return [m for m, s in scores.items() if s < TRIMODAL_RATIO * (sum(scores.values()) - s)]
    (first, s_first), (second, s_second) = scores.items()
    if not s_first and not s_second:
        return []  # neither knows anything
    ratio = s_first / s_second if s_second else float("inf")
    return [second] if ratio > sigma + tau else [first] if ratio < sigma - tau else []


SCORE_TESTS: Mapping[str, Callable[[Mapping[str, float], float, float], list[str]]] = {
    "difference": lags_by_difference,
    "ratio": lags_by_ratio,
}


RELEASED_WEIGHTS: Mapping[int, Sequence[float]] = {2: (0.4, 0.6), 3: (0.33, 0.33, 0.34)}
"""{modalities: weights of their logits in the fused ones}, of the scripts for CREMA-D and Kinetics-Sounds, and of
that for NVGesture."""


class Gate(nn.Module):
    """What weighs added classifiers, from how much of the batches' confidence a modality has had (966dbf5)."""

    shares: Tensor

    def __init__(self, num_modalities: int) -> None:
        super().__init__()
        layers = (nn.Linear(1, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
        self.net = nn.Sequential(*layers)
        self.register_buffer("shares", torch.zeros(num_modalities))

    def forward(self) -> Tensor:
        """Return the weight of each modality's added classifiers (M,)."""
        weights: Tensor = self.net(self.shares.clone()[:, None])[:, 0]  # they change before the backward pass
        return weights


def confidence_shares(total: Tensor, latest: Tensor, step: int) -> Tensor:
    """Return each modality's confidence over that of the others (M,), as the released code runs it.

    Args:
        total: summed confidence of the epoch so far, this batch included (M,).
        latest: that of this batch (M,).
        step: batches before this one in the epoch.
    """
    mean = latest / (step + 1) + total * step / (step + 1)
    return mean / (mean.sum() - mean)


class AUGHead(SharedOutputHead):
    """Classifiers that share an output layer; the fused logits are a sum, or weighted; a gate may weigh added ones."""

    weights: Sequence[float] | None = None
    gate: Gate | None

    def __init__(self, dims: Mapping[str, int], hidden: int, num_classes: int) -> None:
        super().__init__(dims, hidden, num_classes)
        self.gate = None

    def merge(self, unimodal: dict[str, Tensor]) -> Tensor:
        if self.weights is None:
            return sum_logits(unimodal.values())
        return sum_logits(w * z for w, z in zip(self.weights, unimodal.values(), strict=True))

    def each(self, modality: str, states: Tensor) -> Tensor:
        """Return the logits (B, n, K) of a modality's classifiers from activations; the gate weighs added ones."""
        logits: Tensor = self.output(states)
        if self.gate is None:
            return logits
        with torch.no_grad():
            weight = self.gate()[list(self.banks).index(modality)]
        return torch.cat([logits[:, :1], weight * logits[:, 1:]], 1)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        if self.gate is None:
            return super().forward(features)
        unimodal = {m: self.each(m, self.banks[m](u)).sum(1) for m, u in features.items()}
        return Outputs(features, unimodal, self.merge(unimodal))


class AUG(Method):
    reference = Reference(
        "Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability Disproportion",
        "NeurIPS",
        2025,
        "njustkmg/NeurIPS25-AUG @ 841d079 : train_CREMAD.py, model/AudioVideo.py",
    )
    modalities = (2, 3)
    off_switches = (OffSwitch({"max_classifiers": 1}, "late_sum", {"hidden": 256}),)
    version = 4
    variants = ({}, {"variant": "released"}, {"variant": "released", "gate": True, "check_every": 1})
    ablations = (
        {"losses": ["residual"]},
        {"losses": ["overall"]},
        {"losses": ["maintenance"]},
        {"register_new": False},
        {"score": "summed"},
        {"score_test": "ratio"},
    )
    """The paper's losses one at a time; the released code's classifiers that are never trained, its score and test."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ksounds": {"lambda_": 0.2, "gate": True},
        "nvgesture": {"lambda_": 0.2, "gate": True},
    }
    """The released scripts' for these, in the repository's first commit (966dbf5)."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="verified from text",
        code_test="test_batched_classifiers_equal_the_plain_loop",
        paper_test="test_residual_equals_soft_cross_entropy_against_smoothed_labels",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {
            "register_new": False,  # added classifiers are in no optimizer and stay as drawn
            "residual": "released",  # q is the probability under the sum of the previous logits
            "score": "summed",  # the probability under the summed logits, in the place of a sum of probabilities
            "score_test": "ratio",
            "alternate": True,  # one backward pass and optimizer step for each modality in turn
            "merge_alpha": "released",  # 0.4 audio + 0.6 video; 0.33, 0.33 and 0.34 on NVGesture
            "check_first": True,
            "init": "released",
        }

        hidden: int = Field(default=256, ge=1)
        """Units of each classifier's hidden layer (released code)."""
        lambda_: float = Field(default=0.5, ge=0, le=1)
        """Smoothing of the residual labels (released code at HEAD; the paper searches 0.1 to 1)."""
        losses: list[Literal["residual", "overall", "maintenance"]] = Field(
            default=["residual", "overall", "maintenance"], min_length=1
        )
        """Terms of the loss of a modality with several classifiers (paper: all three)."""
        residual: Literal["paper", "released"] = "paper"
        """How much the previous classifiers have explained: the sum of their probabilities, which may pass 1, or the
        probability under their summed logits."""
        clamp: bool = True
        """Keep the residual label at zero or more (ours). As the paper writes it, it falls below from four classifiers
        on, the loss then has no lower bound, and training diverges (docs/findings.md)."""
        init: Literal["protocol", "released"] = "protocol"
        """How classifiers start: as the protocol says, or in any case as the released audio-visual scripts draw them,
        Xavier-normal and without bias. One that is added starts as the first did."""
        register_new: bool = True
        """Optimise added classifiers (paper); the released code leaves them as drawn."""
        alternate: bool = False
        """Step for each modality in turn (released code) instead of once for all (paper, Algorithm 1)."""
        merge_alpha: Annotated[float, Field(ge=0, le=1)] | Literal["released"] | None = None
        """Weight of the first modality's logits in the fused ones, the others sharing the rest; `released`: 0.4 and 0.6
        of two, 0.33, 0.33 and 0.34 of three; None for the sum."""
        gate: bool = False
        """Weigh added classifiers by a small network of each modality's share of confidence, trained towards 1 for a
        modality with no more than an even share and towards 0 for one with more, at a tenth of the rate (all scripts of
        the first commit, 966dbf5; neither the paper nor HEAD has it)."""
        assign: bool = True
        """Add classifiers as the scores demand; False keeps the number at the start."""
        classifiers: dict[str, int] = {}
        """Classifiers of each modality at the start, 1 where not named (paper: 1)."""
        max_classifiers: int = Field(default=20, ge=1)
        """Most classifiers of one modality (ours; the paper sets none)."""
        score: Literal["literal", "summed"] = "literal"
        """Confident score of a sample: the true-class probabilities of a modality's classifiers, summed, as the paper
        writes it, or the probability under their summed logits (released code)."""
        score_test: Literal["difference", "ratio"] = "difference"
        """Compare scores by difference (paper) or ratio (released code)."""
        sigma: float = Field(default=1.0, gt=0)
        """Scale of the weaker score in the comparison (paper, all data sets)."""
        tau: float = Field(default=0.01, ge=0)
        """Gap of scores that calls for a classifier (paper, all data sets)."""
        check_every: int | None = Field(default=None, ge=1)
        """Epochs between comparisons, t_N; None for a tenth of the epochs, as the paper's values are."""
        check_first: bool = False
        """Compare after the first epoch too (released code)."""
        patience: int | None = Field(default=None, ge=1)
        """Instead of every t_N epochs, compare once the gap of scores has not closed by tau for this many epochs (ours:
        the paper names its hand-set t_N as a limit)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(*self.classifiers)

        def refuse(self, epochs: int) -> str | None:
            if self.assign and (self.check_every or 0) > epochs:
                return f"check_every={self.check_every} in {epochs} epochs, so scores would never be compared"
            return None

    config: Config
    net: MultimodalNet[AUGHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[AUGHead]:
        config = self.config
        net = MultimodalNet(task.build_encoders(), lambda dims: AUGHead(dims, config.hidden, task.num_classes))
        net.head.weights = self.merge_weights(len(task.modalities))
        for modality, count in config.classifiers.items():
            for _ in range(count - 1):
                net.head.bank(modality).grow()
        if config.gate:
            net.head.gate = Gate(len(task.modalities))
        if config.init == "released":
            draw_weights(net.head)
        self.added: list[str] = []
        self.due: list[str] = []  # these get a classifier when the next epoch begins
        self.gap, self.waited = float("inf"), 0
        return net

    def merge_weights(self, count: int) -> Sequence[float] | None:
        """Return the weights of so many modalities' logits in the fused ones; None for their sum."""
        first = self.config.merge_alpha
        if first is None or first == "released":
            return None if first is None else RELEASED_WEIGHTS[count]
        return [first, *[(1 - first) / (count - 1)] * (count - 1)]

    def attach(self, run: Run) -> None:
        self.run, gate = run, self.net.head.gate
        gated = set(map(id, gate.parameters())) if gate else set()
        self.optimizer = run.optimizer([p for p in self.net.parameters() if id(p) not in gated])
        if gate:
            run.add_parameters(self.optimizer, gate.parameters(), lr=self.optimizer.defaults["lr"] / 10)
        if not self.config.clamp:
            log.warning(
                "clamp=false: the residual loss has no lower bound; `negative/<modality>` says how often it falls"
            )
        self.check_every = self.config.check_every or tenth(run.epochs)

    def start_epoch(self, epoch: int) -> None:
        for modality in self.due:
            self.grow(modality)
        self.due = []
        self.scores = dict.fromkeys(self.task.modalities, torch.zeros((), device=self.run.device))
        self.steps = 0

    def step(self, batch: Batch) -> dict[str, Tensor]:
        features, before = self.net.encode(batch.inputs), dict(self.scores)
        terms: dict[str, Tensor] = {}
        total: list[Tensor] = []
        for modality, u in features.items():
            total.append(self.boosting_loss(modality, u, batch.labels, terms))
            if self.config.alternate:
                self.update(total[-1])
        if not self.config.alternate:
            self.update(sum_logits(total))
        if self.net.head.gate:
            self.train_gate(self.net.head.gate, before, terms)
        return {"loss": sum_logits(total).detach(), **terms}

    def train_gate(self, gate: Gate, before: Mapping[str, Tensor], terms: dict[str, Tensor]) -> None:
        """Train the gate on the shares as they were, towards what the shares after this batch call for."""
        weights = gate()
        total, earlier = (torch.stack(list(scores.values())) for scores in (self.scores, before))
        gate.shares.copy_(confidence_shares(total, total - earlier, self.steps))
        even = 1 / (len(self.scores) - 1)
        self.update(F.mse_loss(weights, (gate.shares <= even).float()))
        terms.update({f"gate/{m}": w for m, w in zip(self.scores, weights.detach(), strict=True)})
        self.steps += 1

    def update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.run.backward(loss)
        self.optimizer.step()

    def boosting_loss(self, modality: str, u: Tensor, labels: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Return a modality's loss from its features (B, D); notes its parts in `terms` and its score."""
        states = self.net.head.banks[modality](u)  # (B, n, H)
        last, before = self.parted(modality, states)
        logits = last if before is None else before + last
        loss = F.cross_entropy(logits, labels)
        terms[f"loss/{modality}"] = loss.detach()
        with torch.no_grad():
            each = self.net.head.each(modality, states)  # (B, n, K)
            self.scores[modality] = self.scores[modality] + SCORES[self.config.score](each, labels).sum()
            if before is None:
                return loss
            previous = each[:, :-1]
            weight = 1 - self.config.lambda_ * RESIDUALS[self.config.residual](previous, labels)
            terms[f"negative/{modality}"] = (weight < 0).float().mean()
            weight = weight.clamp_min(0) if self.config.clamp else weight
        parts = {
            "residual": lambda: weighted_cross_entropy(last, labels, weight),
            "overall": lambda: loss,
            "maintenance": lambda: F.cross_entropy(before, labels),
        }
        chosen = {name: parts[name]() for name in self.config.losses}
        terms.update({f"{name}/{modality}": part.detach() for name, part in chosen.items()})
        return sum_logits(chosen.values())

    def parted(self, modality: str, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits (B, K) of the last classifier and the sum of those before it, None if there is one only."""
        head, several = self.net.head, states.shape[1] > 1
        if head.gate:
            each = head.each(modality, states)
            return each[:, -1], each[:, :-1].sum(1) if several else None
        return head.logits_of(states[:, -1:]), head.logits_of(states[:, :-1]) if several else None

    def end_epoch(self, epoch: int) -> None:
        scores = {m: float(s) / self.run.samples_served for m, s in self.scores.items()}
        for modality, s in scores.items():
            self.run.log(
                **{f"score/{modality}": s, f"classifiers/{modality}": float(self.net.head.bank(modality).count)}
            )
        if self.config.assign and self.is_due(epoch, scores):
            lagging = SCORE_TESTS[self.config.score_test](scores, self.config.sigma, self.config.tau)
            self.due = [m for m in lagging if self.net.head.bank(m).count < self.config.max_classifiers]

    def is_due(self, epoch: int, scores: Mapping[str, float]) -> bool:
        """Return whether to compare scores after this epoch."""
        if self.config.patience is None:
            return (epoch + 1) % self.check_every == 0 or (epoch == 0 and self.config.check_first)
        gap = max(scores.values()) - min(scores.values())
        closing = gap < self.gap - self.config.tau
        self.gap, self.waited = (gap, 0) if closing else (self.gap, self.waited + 1)
        if self.waited < self.config.patience:
            return False
        self.gap, self.waited = gap, 0
        return True

    def grow(self, modality: str) -> None:
        """Give a modality one more classifier, trained from now on at the current rate unless `register_new` is off."""
        self.train_instead(self.net.head.bank(modality).grow(self.config.register_new))
        self.added.append(modality)

    def get_extra_state(self) -> dict[str, Any]:
        return {"added": list(self.added), "due": list(self.due), "gap": self.gap, "waited": self.waited}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        added: Sequence[str] = state["added"]
        for modality in added[len(self.added) :]:
            self.grow(modality)
        self.due = list(state.get("due", ()))  # none in checkpoints of version 1, which grew before they were taken
        self.gap, self.waited = state["gap"], state["waited"]
