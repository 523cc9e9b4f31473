"""CML: confidence must not rise when a modality is removed.

From each sample modalities are removed one after the other, in an order drawn anew in every step, which gives a chain
of coalitions S_0 = all, S_1, ..., S_{M-1} of one modality. With z_S the logits of the concat head on features that are
zero outside S, and Conf(z) = max softmax(z),

    L = 1/M * sum over t of CE(z_{S_t}, y) + strength * sum over t of max(0, Conf(z_{S_t+1}) - Conf(z_{S_t}))

averaged over samples. One forward pass of the encoders, M + 1 of the head, one backward pass.

Paper: By Ma, Zhang, Zhang, Wu, Fu, Zhou and Hu. A hinge on the rise of confidence when modalities are removed, added to
the loss of any classifier; read at second hand. How much of it, and whether smaller coalitions are classified too,
could not be checked.

Released code: Two imputation models (MIWAE, CPM-Nets) on feature vectors, which replace what is removed by a mean. The
penalty is a sum over samples, weighted 0.1 in the readme's example. Samples that are right only without the modality
are exempt. In the MIWAE script, not in the CPM one, the larger coalition's confidence is held fixed where both are
wrong.

Ours: On a concat head; removed features are zero and the penalty is a mean. The losses of all coalitions and the chain
are those of the released code. `released` has its penalty, which equals the official lines with its gradients to 1e-6.
BalanceBenchmark's hinge is on the sum of the batch instead of each sample.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec, to_device
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import MultimodalNet, Outputs, concat_net
from benchmark.seeds import generator


def confidence(logits: Tensor) -> Tensor:
    """Return the greatest probability of each sample, (B, K) -> (B,)."""
    return logits.softmax(1).amax(1)


def penalty(smaller: Tensor, larger: Tensor) -> Tensor:
    """Return how much more confident a smaller coalition is, at least 0, averaged over samples, from logits (B, K)."""
    return (confidence(smaller) - confidence(larger)).relu().mean()


def released_penalty(smaller: Tensor, larger: Tensor, labels: Tensor) -> Tensor:
    """Return the released code's penalty of a smaller coalition, summed over samples.

    Args:
        smaller: logits (B, K) of the smaller coalition.
        larger: logits (B, K) of the larger one.
        labels: class indices (B,).
    """
    right, right_without = (logits.argmax(1) == labels for logits in (larger, smaller))
    both = (confidence(smaller) - confidence(larger)).relu() * right
    one = (confidence(smaller) - confidence(larger).detach()).relu() * ~(right | right_without)
    return (both + one).sum()


def removal_ranks(count: int, num_modalities: int, draw: torch.Generator) -> Tensor:
    """Return the place of each modality in a random order of removal of each sample, (count, M)."""
    return torch.rand(count, num_modalities, generator=draw).argsort(1)


class CML(Method):
    reference = Reference(
        "Calibrating Multimodal Learning",
        "ICML",
        2023,
        "QingyangZhang/CML @ 9d2496e : miwae/train.py, cpm/CPM_Nets.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"strength": 0.0, "subsets": False}, "concat"),)
    variants = ({}, {"variant": "released"}, {"subsets": False})
    ablations = ({"strength": 0.0}, {"subsets": False}, {"strength": 0.0, "subsets": False})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_penalties_equal_independent_calculations",
        paper_test="test_loss_averages_classification_and_adds_the_penalties",
    )

    class Config(Variants):
        strength: float | None = Field(default=None, ge=0)
        """Weight of the penalty: lambda; None for 0.1 in `released` (readme: beta 10 of 100, on a sum) and else 1
        (ours, on a mean)."""
        subsets: bool = True
        """Average the cross-entropy over the chain (released code); False takes that of all modalities alone."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.generator = generator(self.run.seed, epoch, "removal")

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        released, given = self.config.variant == "released", self.config.strength
        chain = self.chain(out)
        pairs = list(zip(chain[1:], chain[:-1], strict=True))  # (smaller, larger)
        violations = torch.stack([confidence(small) > confidence(large) for small, large in pairs])
        self.run.log(violations=violations.float().mean())
        classified = chain if self.config.subsets else chain[:1]
        cross_entropy = torch.stack([F.cross_entropy(z, batch.labels) for z in classified]).mean()
        penalties = [released_penalty(*pair, batch.labels) if released else penalty(*pair) for pair in pairs]
        strength = (0.1 if released else 1.0) if given is None else given
        return cross_entropy + strength * torch.stack(penalties).sum()

    def chain(self, out: Outputs) -> list[Tensor]:
        """Return the logits (B, K) of all modalities and, for each sample, of fewer and fewer."""
        count, device = len(out.fused), out.fused.device
        ranks = to_device(removal_ranks(count, len(out.features), self.generator), device)
        chain = [out.fused]
        for removed in range(1, len(out.features)):
            kept = (ranks >= removed).unbind(1)
            present = {m: u * keep[:, None] for (m, u), keep in zip(out.features.items(), kept, strict=True)}
            chain.append(self.net.head(present).fused)
        return chain
