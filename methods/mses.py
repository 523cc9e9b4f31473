"""MSES: modality-specific early stopping. Multi-task training in which each modality stops when it begins to overfit.

    loss = CE(z, y) + weight * sum over m of CE(z_m, y)

After each epoch the loss of each modality's own classifier is measured on a held-out share of train. A modality that
has not improved for `patience` epochs goes back to its best epoch, encoder and classifier, and stays there: its
parameters are frozen and its encoder runs in evaluation mode, normalisation statistics too. The joint head trains on.

One forward and one backward pass, less the stopped encoders' backward; a forward pass over the held-out share each
epoch.

Paper: By Fujimori, Endo, Kawai and Mochizuki. Only the abstract was available: classifiers train as one multi-task
problem, overfitting is detected on validation, modalities stop apart.

Released code: None of the authors'; AGM's repository has an MSES of its own. One loss on the fused logits; after each
epoch the modalities' losses on *test*, 0.4 of this epoch's and 0.6 of the last one's, are compared with the lowest; one
that has not fallen for 80 epochs stops: the whole network and its optimizer go back to that modality's best epoch, and
its gradients count as zero from then on, while momentum, weight decay and normalisation statistics still move it.

Ours: Multi-task as the abstract says, which AGM's is not, and so not compared with it: patience on a share held out of
train, the modality alone goes back to its best epoch, frozen with its statistics. The rule and every default are ours.
Stopping the whole run by the joint loss is left to the choice of epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs

from ._auxiliary import AuxiliaryHead, auxiliary_net, multitask_loss
from ._held_out import held_out_mean


@dataclass
class Watch:
    """The best held-out loss of a modality so far, and how many epochs ago that was."""

    best: float = float("inf")
    waited: int = 0

    def note(self, loss: float, min_gain: float) -> bool:
        """Take the loss of one more epoch and tell whether it is the best."""
        improved = loss < self.best - min_gain
        self.best, self.waited = (loss, 0) if improved else (self.best, self.waited + 1)
        return improved


class MSES(Method):
    reference = Reference(
        "Modality-Specific Learning Rate Control for Multimodal Classification",
        "ACPR",
        2019,
        "lihong2303/AGM_ICCV2023 @ 5a65542 : run/CREMAD_main.py",
    )
    off_switches = (OffSwitch({"patience": None}, "multitask"),)
    variants = ({}, {"patience": 1}, {"patience": 1, "restore": False})
    ledger = Ledger(
        code="not compared",
        paper="reconstructed",
        paper_test="test_golden_sequence_stops_after_the_fifth_epoch_and_goes_back_to_the_second",
    )

    class Config(Method.Config):
        weight: float = Field(default=1.0, gt=0)
        """Weight of each auxiliary cross-entropy (ours)."""
        patience: int | None = Field(default=5, ge=1)
        """Epochs without improvement after which a modality stops (ours); None never stops and holds nothing out."""
        min_gain: float = Field(default=0.0, ge=0)
        """By how much a loss must fall to count as improved (ours)."""
        restore: bool = True
        """Go back to the best epoch on stopping (ours); False stays where it is."""
        held_out: float = Field(default=0.1, gt=0, lt=1)
        """Share of train on which overfitting is detected (ours)."""

    config: Config
    net: MultimodalNet[AuxiliaryHead]

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        if config.patience is not None:
            self.held_out_share = config.held_out
        self.watches = {m: Watch() for m in task.modalities}
        self.stopped: list[str] = []
        self.snapshots: dict[str, dict[str, Tensor]] = {}

    def build_net(self, task: TaskSpec) -> MultimodalNet[AuxiliaryHead]:
        return auxiliary_net(task)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        return multitask_loss(out.fused, out.unimodal, batch.labels, self.config.weight)

    def start_epoch(self, epoch: int) -> None:
        for modality in self.stopped:
            self.parts(modality).eval()

    def end_epoch(self, epoch: int) -> None:
        if self.config.patience is None:
            return
        for modality, loss in self.held_out_losses(epoch).items():
            self.run.log(**{f"held_out_loss/{modality}": loss, f"stopped/{modality}": float(modality in self.stopped)})
            if modality in self.stopped:
                continue
            watch = self.watches[modality]
            if watch.note(loss, self.config.min_gain):
                self.snapshots[modality] = {k: v.clone() for k, v in self.parts(modality).state_dict().items()}
            elif watch.waited >= self.config.patience:
                self.stop(modality)

    def held_out_losses(self, epoch: int) -> dict[str, float]:
        """Return the mean cross-entropy of each modality's classifier on the held-out share."""
        return held_out_mean(self, epoch, partial(F.cross_entropy, reduction="sum"))

    def parts(self, modality: str) -> nn.ModuleList:
        """Return what is a modality's own: its encoder and its classifier."""
        return nn.ModuleList([self.net.encoders[modality], self.net.head.auxiliary.layers[modality]])

    def stop(self, modality: str) -> None:
        """Train a modality no more, from its best epoch on."""
        snapshot = self.snapshots.pop(modality)
        if self.config.restore:
            self.parts(modality).load_state_dict(snapshot)
        self.freeze(modality)

    def freeze(self, modality: str) -> None:
        self.stopped.append(modality)
        self.parts(modality).requires_grad_(False)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "watches": {m: [watch.best, watch.waited] for m, watch in self.watches.items()},
            "stopped": list(self.stopped),
            "snapshots": self.snapshots,
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.watches = {m: Watch(best, waited) for m, (best, waited) in state["watches"].items()}
        self.snapshots = dict(state["snapshots"])
        for modality in state["stopped"]:
            self.freeze(modality)
