"""Greedy: when one modality's own layers learn too slowly, cut what it gets from the others for a few steps.

Encoders meet in a squeeze-and-excitation module (MMTM), after which each modality has a classifier of its own:

    h = relu(W [u_1 .. u_M] + w),  gate_m = sigmoid(V_m h + v_m),  z_m = classifier_m(gate_m * u_m),  z = mean of z_m

trained by the sum of CE(z_m, y). The conditional learning speed compares the bypass of m, its excitation and the shared
squeeze layer, with its main branch, encoder and classifier, by sums over all regular steps so far:

    BDR_m = log10( sum |grad bypass|^2 / |bypass|^2  /  sum |grad main|^2 / |main|^2 )

If the BDRs differ by more than epsilon, the next Q steps are curated: gate_m of the modality with the largest is
replaced by its mean so far, so that it learns from its own input alone. One forward and one backward pass a step, and
the norms of all parameters and gradients.

Paper: By Wu et al. Gates are replaced by their own means over regular steps. An MMTM after each of the last three
stages of two ResNets.

Released code: The first modality's mean gate serves every modality, and advances in curated steps and in evaluation
too.

Ours: `released` has the first two of these, weights equal to 4e-16 over 20 runs with 348 of 600 steps curated. One
MMTM, on pooled features, since encoders keep their stages to themselves; of the last stage gating before pooling and
after is the same. Of three modalities the largest BDR is compared with the smallest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import Head, LateHead, MultimodalNet, Outputs, sum_logits, summed_cross_entropy

from ._mmtm import MMTM


class GreedyHead(Head):
    """An MMTM and a classifier for each modality; the fused logits are the mean.

    Attributes:
        curated: whether a modality's gate is replaced by its mean in training, (M,).
        released: take the first modality's gates for those of all in the means, and count curated steps.
    """

    curated: Tensor

    def __init__(self, dims: Mapping[str, int], num_classes: int, ratio: float, released: bool) -> None:
        super().__init__()
        self.mmtm = MMTM(dims, ratio)
        self.classifiers = LateHead(dims, num_classes)
        self.released = released
        self.register_buffer("curated", torch.zeros(len(dims), dtype=torch.bool))

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        gates = self.mmtm(features)
        if self.training:
            first = next(iter(gates.values()))
            seen = dict.fromkeys(gates, first) if self.released else gates
            self.mmtm.remember(seen, torch.ones_like(self.curated[0]) if self.released else ~self.curated.any())
            switches = zip(gates, self.curated, strict=True)
            gates = {m: torch.where(off, self.mmtm.mean(m), gates[m]) for m, off in switches}
        unimodal = self.classifiers({m: gates[m] * u for m, u in features.items()}).unimodal
        return Outputs(features, unimodal, sum_logits(unimodal.values()) / len(unimodal))


def speed(params: Iterable[nn.Parameter]) -> Tensor:
    """Return the squared norm of the gradient of some parameters over their own."""
    params = list(params)
    gradients = [p.grad for p in params if p.grad is not None]
    return (nn.utils.get_total_norm(gradients) / nn.utils.get_total_norm(params)).square()


class Greedy(Method):
    reference = Reference(
        "Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural Networks",
        "ICML",
        2022,
        "nyukat/greedy_multimodal_learning @ a190e03 : src/balanced_mmtm.py, src/callbacks.py, src/model.py",
    )
    modalities = (2, None)
    variants = ({}, {"variant": "released"}, {"first_epoch": 0, "window": 2})
    ablations = ({"epsilon": 1e9},)
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_means_advance_in_training_alone_and_for_released_in_curated_steps_with_the_gates_of_the_first",
        paper_test="test_head_equals_an_independent_calculation",
    )

    class Config(Variants):
        epsilon: float = Field(default=0.01, ge=0)
        """Difference of the BDRs, in decades, above which steps are curated (released code)."""
        window: int = Field(default=5, ge=1)
        """Steps that are curated at a time, Q (released code)."""
        first_epoch: int = Field(default=1, ge=0)
        """First epoch with curated steps, from 0 (released code: the second)."""
        ratio: float = Field(default=4.0, gt=0)
        """Width of the features over half that of the squeeze layer (released code)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            if self.variant == "released" and len({encoder.dim for encoder in task.build_encoders().values()}) > 1:
                return "the released code mixes up the gates of modalities, so all features must be of one width"
            return None

    config: Config
    net: MultimodalNet[GreedyHead]
    bypass: Tensor
    main: Tensor
    remaining: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet[GreedyHead]:
        for name in ("bypass", "main"):
            self.register_buffer(name, torch.zeros(len(task.modalities)))
        self.register_buffer("remaining", torch.zeros((), dtype=torch.long))
        ratio, released = self.config.ratio, self.config.variant == "released"
        return MultimodalNet(task.build_encoders(), lambda dims: GreedyHead(dims, task.num_classes, ratio, released))

    def start_epoch(self, epoch: int) -> None:
        self.may_curate = epoch >= self.config.first_epoch

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        return summed_cross_entropy(out.unimodal, batch.labels)

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        """Note how fast each part learns in this step, if it is a regular one, and decide about the next."""
        for modality, curated in zip(self.task.modalities, self.net.head.curated.clone(), strict=True):
            self.run.log(**{f"curated/{modality}": curated.float()})
        regular = self.remaining == 0
        bypass, main = self.speeds()
        self.bypass += torch.where(regular, bypass, 0.0)
        self.main += torch.where(regular, main, 0.0)
        bdr = (self.bypass / self.main).log10()
        biased = regular & (bdr.max() - bdr.min() > self.config.epsilon) & self.may_curate
        self.remaining.copy_(torch.where(biased, self.config.window, (self.remaining - 1).clamp_min(0)))
        self.net.head.curated.copy_(F.one_hot(bdr.argmax(), len(bdr)).bool() & (self.remaining > 0))

    def speeds(self) -> tuple[Tensor, Tensor]:
        """Return the learning speeds of the bypass and of the main branch of each modality: (M,) and (M,)."""
        mmtm, layers, encoders = self.net.head.mmtm, self.net.head.classifiers.layers, self.net.encoders
        shared = list(mmtm.squeeze.parameters())
        bypass = [speed([*mmtm.excite[m].parameters(), *shared]) for m in encoders]
        main = [speed([*encoders[m].parameters(), *layers[m].parameters()]) for m in encoders]
        return torch.stack(bypass), torch.stack(main)
