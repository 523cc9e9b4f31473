"""Relearning: Diagnosing & Re-learning. Now and then encoders are drawn back to where they began, as they overfit.

Features of train and of a held-out share are clustered by k-means, each modality's and each share's by themselves, as
many clusters as classes. With the purity P, the part of the samples that are of their cluster's most frequent class,

    gap_m = |P_m(train) - P_m(held out)|,    w_m = tanh(strength * gap_m)
    theta_m <- w_m * theta_m at the start + (1 - w_m) * theta_m            all parameters of the encoder of m

every so many epochs, and a few times only; the head, normalisation statistics and the optimizer's state stay. Between
times it is `concat`.

One forward and one backward pass a step, and a forward pass over train and the held-out share each time, which the
samples of that epoch count.

Paper: By Wei et al. gap = |P(train) - P(validation)|, w = tanh(lambda * gap), all encoders drawn back; formulas by a
published summary, the text was not available.

Released code: The same: lambda 3, after epochs 20, 40 and 60 of 90, on 744 of CREMA-D's 6698 training samples. Its
training set gets no augmentation, since its split is not called `train`.

Ours: The same, so there is no variant; weights equal the released functions' to 5e-8 on 20 draws. The share is held out
of train, features are of augmented samples, and the interval is the same part of any run.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, concat_net
from benchmark.training import Run

from ._features import encode_all


def cluster(features: Tensor, num_clusters: int) -> Tensor:
    """Return the cluster (N,) of each feature (N, D), by k-means after scaling each dimension to [-1, 1]."""
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import MinMaxScaler

    scaled = MinMaxScaler((-1, 1)).fit_transform(features.cpu().numpy())
    return torch.from_numpy(KMeans(min(num_clusters, len(scaled)), random_state=0).fit_predict(scaled)).long()


def purity(clusters: Tensor, labels: Tensor) -> float:
    """Return the part of the samples that are of their cluster's most frequent class: (N,) and (N,) -> [0, 1]."""
    counts = torch.zeros(int(clusters.max()) + 1, int(labels.max()) + 1)
    counts.index_put_((clusters, labels), torch.ones(len(labels)), accumulate=True)
    return float(counts.amax(1).sum()) / len(labels)


@torch.no_grad()
def draw_back(parameters: Iterable[nn.Parameter], initial: Iterable[Tensor], weight: Tensor) -> None:
    """Move parameters to `weight` times their first values and the rest of what they are."""
    for parameter, first in zip(parameters, initial, strict=True):
        parameter.copy_(weight * first + (1 - weight) * parameter)


class Relearning(Method):
    reference = Reference(
        "Diagnosing and Re-learning for Balanced Multimodal Learning",
        "ECCV",
        2024,
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024 @ 025085e : code/ours.py",
    )
    off_switches = (OffSwitch({"times": 0}, "concat"),)
    variants = ({}, {"times": 1})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_drawing_back_equals_an_independent_calculation",
        paper_test="test_purity_equals_an_independent_calculation",
    )

    class Config(Method.Config):
        strength: float = Field(default=3.0, gt=0)
        """lambda: how far a gap of purity draws back (released script)."""
        every: int | None = Field(default=None, ge=1)
        """Epochs between times, the first coming after one epoch more; None for 2/9 of the run (released script: 20 of
        90)."""
        times: int = Field(default=3, ge=0)
        """How often (released script). At 0 nothing is held out."""
        held_out: float = Field(default=0.11, gt=0, lt=1)
        """Share of train that is held out for the diagnosis (released lists: 744 of 6698)."""

        def refuse(self, epochs: int) -> str | None:
            if self.times and self.every is not None and self.every > epochs - 2:
                return f"every={self.every} in {epochs} epochs, so nothing would ever be re-learnt"
            return None

    config: Config

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        if config.times:
            self.held_out_share = config.held_out

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)

    def attach(self, run: Run) -> None:
        """Keep the first values of the encoders, which a resumed run draws anew and so need not be saved."""
        super().attach(run)
        self.initial = {m: [p.detach().clone() for p in e.parameters()] for m, e in self.net.encoders.items()}
        self.every = self.config.every or max(round(run.epochs * 2 / 9), 1)

    def start_epoch(self, epoch: int) -> None:
        # The released code does this after an epoch's evaluation, hence the shift by one.
        number, rest = divmod(epoch - 1, self.every)
        if rest == 0 and 1 <= number <= self.config.times:
            self.relearn(epoch)

    def relearn(self, epoch: int) -> None:
        """Diagnose every modality and draw its encoder back."""
        train = self.purities(self.run.train_batches(epoch, salt=1))
        held_out = self.purities(self.run.held_out_batches(epoch))
        for modality, encoder in self.net.encoders.items():
            gap = abs(train[modality] - held_out[modality])
            weight = torch.tensor(self.config.strength * gap).tanh()
            self.run.log(**{f"gap/{modality}": gap})
            self.run.log(**{f"drawn_back/{modality}": weight})
            draw_back(encoder.parameters(), self.initial[modality], weight.to(self.run.device))

    def purities(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the purity of each modality's clusters, in eval mode."""
        features, labels = encode_all(self.net, batches)
        return {m: purity(cluster(u, self.task.num_classes), labels.cpu()) for m, u in features.items()}
