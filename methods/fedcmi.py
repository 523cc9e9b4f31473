"""FedCMI: clients in which the dominant modality's global classifier teaches the weak modality by a branch of its own.

Each modality m has two projections of its features u_m, its own and one for infiltration, s_m and t_m, and a classifier
g_m of both. The fused logits are linear in (s_audio, s_video), so infiltration never enters the prediction of a client
that observes both. Such a client minimises

    L = CE(z, y) + c1 sum over m of CE(g_m(s_m), y) + c2 L_rd
    L_rd = -mean over samples i of sum over classes c of softmax(q_i / T_y)_c log softmax(p_i / T_y)_c

with p = g_w(t_w) of the modality w that is less sure of the batch (by the sum of softmax(g_m(s_m))[y]), and q the other
modality's g(s) in the global network of the round, in eval mode. T sharpens the teacher for classes in which it is
ahead more than usual: with rho_k the first modality's mean probability of class k on the client's data over the
second's, r their mean, and both replaced by their reciprocals if r <= 1,

    T_k = 1 / (1 + c3 ln(rho_k / r))  if rho_k > r,  else 1.

A client with one modality minimises CE(z, y) with its infiltration in the place of what is missing. Weights are
averaged as in `federated`, a modality's encoder, projections and classifier over the clients that observe it.

Cost: a round of `federated`, a forward pass of the global network each step of a client with both modalities after the
warm-up, and a forward pass over that client's samples each round.

Paper: By Fan et al. Two projections a modality; the dominant one's global classifier teaches the weak one's second
branch at a temperature of each class. The text was not available; settings of its experiments are open.

Released code: Cannot run as it stands: the server builds a network without the projections and hands clients an
argument that they do not take. Personalised branches are references to the live weights, so they do nothing.

Ours: What the code was meant to do, without personalisation and without the proximal term that it offers unimodal
clients. Temperatures equal the official lines to 1e-15 on random probabilities; gradients of teacher and dominant
encoder are zero.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Reference
from benchmark.model import Head, MultimodalNet, Outputs, summed_cross_entropy, true_class_probability
from benchmark.seeds import seed_of
from benchmark.training import Run

from ._federated import Federated, assign_modalities


def temperatures(ratios: Tensor, sharpness: float) -> Tensor:
    """Return the temperature of each class, (K,).

    Args:
        ratios: mean true-class probability of the one modality over that of the other (K,), NaN for a class without
            samples. Where their mean is at most 1, the other one leads, and the reciprocals of both count.
        sharpness: c3 of the formula.
    """
    mean = ratios.nanmean()
    excess = torch.where(mean > 1, ratios / mean, mean / ratios).nan_to_num(1.0).clamp_min(1.0)
    return 1 / (1 + sharpness * excess.log())


def distillation(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """Return the mean cross-entropy of the student's from the teacher's softened predictions.

    Args:
        student: logits (B, K).
        teacher: logits (B, K), without gradient.
        temperature: of each sample (B,).
    """
    soft = (teacher / temperature[:, None]).softmax(1)
    return -(soft * (student / temperature[:, None]).log_softmax(1)).sum(1).mean()


class InfiltrationHead(Head):
    """Two projections of each modality and a classifier of both; the fused logits are linear in its own projections.

    `observed` names the modalities that there are; a missing one's place is taken by the infiltration of another.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        width = max(dims.values())
        self.own = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        self.infiltration = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        self.classifiers = nn.ModuleDict({m: nn.Linear(width, num_classes) for m in dims})
        self.fusion = nn.Linear(width * len(dims), num_classes)
        self.observed: Sequence[str] = tuple(dims)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        own = {m: self.own[m](u) for m, u in features.items()}
        first = self.observed[0]
        slots = [s if m in self.observed else self.infiltration[first](features[first]) for m, s in own.items()]
        unimodal = {m: self.classifiers[m](s) for m, s in own.items()}
        return Outputs(features, unimodal, self.fusion(torch.cat(slots, 1)))

    def infiltrated(self, modality: str, features: Tensor) -> Tensor:
        """Return the classifier's logits of a modality's infiltration: (B, D) -> (B, K)."""
        logits: Tensor = self.classifiers[modality](self.infiltration[modality](features))
        return logits


class FedCMI(Federated):
    reference = Reference(
        "Balanced Multi-modal Federated Learning via Cross-Modal Infiltration",
        "arXiv",
        2024,
        "fanyunfeng-bit/Balanced-Modality-Selection-in-MFL @ 14c762c : client/FedCMI.py, server/FedCMI.py",
    )
    modalities = (2, 2)
    variants = (
        {"clients": 4, "per_round": 3, "local_epochs": 5},
        {"clients": 3, "multimodal": 1.0, "warmup": 0, "local_epochs": 3},
    )
    ablations = ({"distill_weight": 0.0}, {"sharpness": 0.0}, {"unimodal_weight": 0.0}, {"multimodal": 1.0})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"local_epochs": 10}}
    """What the released code, made for these two, does by default."""
    ledger = Ledger(
        code="cannot run",
        paper="from abstract or memory",
        code_test="test_temperatures_equal_an_independent_calculation",
        paper_test="test_distillation_equals_an_independent_calculation_and_is_at_least_the_teachers_entropy",
    )

    class Config(Federated.Config):
        multimodal: float = Field(default=0.5, ge=0, le=1)
        """Share of the clients that observe both modalities; each other observes one, by turns (released code)."""
        unimodal_weight: float = Field(default=2.0, ge=0)
        """Weight of each modality's own cross-entropy, c1 (released code)."""
        distill_weight: float = Field(default=1.0, ge=0)
        """Weight of the distillation, c2 (released code)."""
        sharpness: float = Field(default=2.0, ge=0)
        """How strongly a class's imbalance sharpens the teacher, c3 (released code); 0 leaves all temperatures at 1."""
        warmup: int = Field(default=1, ge=0)
        """First round with distillation, from 0 (released code)."""

    config: Config
    net: MultimodalNet[InfiltrationHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[InfiltrationHead]:
        return MultimodalNet(task.build_encoders(), lambda dims: InfiltrationHead(dims, task.num_classes))

    def attach(self, run: Run) -> None:
        super().attach(run)
        self.teachers = [copy.deepcopy(self.net).eval().requires_grad_(False)]  # in a list: no part of the method

    def observed(self) -> Sequence[tuple[str, ...]]:
        seed = seed_of(self.run.seed, "modalities")
        return assign_modalities(self.config.clients, list(self.task.modalities), self.config.multimodal, seed)

    def begin_turn(self, epoch: int) -> None:
        super().begin_turn(epoch)
        self.net.head.observed = self.turn.modalities
        complete = len(self.turn.modalities) == len(self.task.modalities)
        self.own_weight = self.config.unimodal_weight if complete else 0.0
        self.distills = complete and epoch >= self.config.warmup and self.config.distill_weight > 0
        if self.distills:
            self.teachers[0].load_state_dict(self.net.state_dict())  # a turn starts from the global weights
            self.temperature = temperatures(self.class_ratios(), self.config.sharpness)

    def end_turn(self, epoch: int) -> None:
        self.net.head.observed = tuple(self.task.modalities)

    @torch.no_grad()
    def class_ratios(self) -> Tensor:
        """Return the first modality's mean true-class probability over the second's on the client's samples, (K,)."""
        sums = torch.zeros(2, self.task.num_classes, device=self.run.device)
        for batch in self.turn.client.run.train_in_order():
            members = F.one_hot(batch.labels, self.task.num_classes).float()
            unimodal = self.teachers[0](batch.inputs).unimodal.values()
            sums += torch.stack([true_class_probability(z, batch.labels) @ members for z in unimodal])
        first, second = sums
        present = self.turn.client.run.train_labels.bincount(minlength=self.task.num_classes) > 0
        tiny = torch.finfo(sums.dtype).tiny
        return torch.where(present, first.clamp_min(tiny) / second.clamp_min(tiny), torch.nan)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        loss = super().loss(out, batch)
        if self.own_weight:
            loss = loss + self.own_weight * summed_cross_entropy(out.unimodal, batch.labels)
        if self.distills:
            loss = loss + self.config.distill_weight * self.infiltration_loss(out, batch)
        return loss

    def infiltration_loss(self, out: Outputs, batch: Batch) -> Tensor:
        """Return L_rd of a batch: the loss of the weak modality's student, without a look at which it is."""
        with torch.no_grad():
            taught = self.teachers[0](batch.inputs).unimodal
            sure = {m: true_class_probability(z, batch.labels).sum() for m, z in out.unimodal.items()}
        first, second = self.task.modalities
        temperature = self.temperature[batch.labels]
        by_first, by_second = (
            distillation(self.net.head.infiltrated(weak, out.features[weak]), taught[dominant], temperature)
            for dominant, weak in ((first, second), (second, first))
        )
        self.run.log(first_dominates=(sure[first] > sure[second]).float())
        return torch.where(sure[first] > sure[second], by_first, by_second)
