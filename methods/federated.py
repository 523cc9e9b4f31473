"""Federated: any method as the objective of clients that hold parts of train, averaged after each round (FedAvg).

Train is divided among clients, each class by shares from a Dirichlet distribution. A round is an epoch: some clients,
drawn at random, start from the global weights, train for some passes over their own samples by the method `local`, and

    w  <-  sum over clients c of n_c w_c / sum over clients c of n_c,        n_c the samples of c

is global again: parameters and buffers, normalisation statistics included. A part of the clients may observe one
modality only. Features of the others are zero there, and what belongs to a modality, by its name, is averaged over the
clients that observe it; if no client of the round does, it stays.

Cost: that of the local method for each sample served; with the default `local_epochs` about as many of them as in an
epoch of the local method alone. Each client's samples are a copy where they are kept in memory.

Paper: By McMahan et al. Clients start each round from the global weights; the mean by number of samples is global
again.

Released code: No code.

Ours: Any method as the local objective. Equal clients average to themselves bit for bit, and one client that observes
all and keeps its optimizer equals the local method bit for bit. Clients without a modality are an extension; they and
the defaults follow the released code of FedCMI. What the local method keeps elsewhere than in parameters and buffers,
such as labels, stays with each client; samples that it holds out are seen by every client.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, load_parts
from benchmark.model import MultimodalNet
from benchmark.seeds import seed_of
from benchmark.settings import parse_settings
from benchmark.training import Run

from ._federated import Federated, assign_modalities

ALONE: Mapping[str, Any] = {"clients": 1, "per_round": 1, "keep_optimizer": True}


class FedAvg(Federated):
    reference = Reference("Communication-Efficient Learning of Deep Networks from Decentralized Data", "AISTATS", 2017)
    off_switches = (
        OffSwitch(ALONE, "concat"),
        OffSwitch({**ALONE, "local": "ogm", "settings": {"alpha": 0.8}}, "ogm", {"alpha": 0.8}),
        OffSwitch({**ALONE, "local": "pmr"}, "pmr"),
    )
    variants = (
        {"clients": 4},
        {"clients": 4, "local": "ogm", "multimodal": 0.5, "per_round": 3, "local_epochs": 2},
        {"clients": 3, "local": "pmr", "keep_optimizer": True},
    )
    ablations = ({"concentration": 1e8}, {"multimodal": 0.5}, {"local": "ogm"}, {"keep_optimizer": True})
    ledger = Ledger(
        code="no code",
        paper="from abstract or memory",
        paper_test="test_a_round_is_the_mean_of_clients_that_start_alike_by_their_samples",
    )

    class Config(Federated.Config):
        local: str = Field(default="concat", pattern=r"^\w+$")
        """Name of the method by which clients train."""
        settings: dict[str, Any] = Field(default_factory=dict)
        """Its settings; what is left out takes its default there."""
        multimodal: float = Field(default=1.0, ge=0, le=1)
        """Share of the clients that observe all modalities; each other observes one, by turns (released code of
        FedCMI: 0.5)."""

        @property
        def parts(self) -> Sequence[str]:
            return (self.local,)

        def unsupported(self, task: TaskSpec) -> str | None:
            kind, settings = self.local_method()
            if issubclass(kind, Federated):
                return f"{self.local} is federated itself"
            if kind.get_extra_state is not Method.get_extra_state:
                return f"{self.local} keeps state besides tensors, of which clients have no mean"
            return kind.unsupported(settings, task)

        def refuse(self, epochs: int) -> str | None:
            _, settings = self.local_method()
            return settings.refuse(epochs)

        def local_method(self) -> tuple[type[Method], Method.Config]:
            """Return the class and the settings of the method by which clients train.

            Raises:
                UserError: when there is no such method, or it has no such settings.
            """
            (kind,) = load_parts(self)
            return kind, parse_settings(kind.Config, self.settings, f"method {self.local}, which clients train by")

    config: Config

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        self.held_out_share = self.local.held_out_share

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        kind, settings = self.config.local_method()
        self.local = kind(settings, task)
        return self.local.net

    def attach(self, run: Run) -> None:
        self.learners: list[Method] = []
        super().attach(run)

    def join(self, part: Run) -> None:
        # Learners share the local method's parameters, buffers and modules; what else they set is their own.
        learner = copy.copy(self.local)
        learner.attach(part)
        self.learners.append(learner)

    def observed(self) -> Sequence[tuple[str, ...]]:
        seed = seed_of(self.run.seed, "modalities")
        return assign_modalities(self.config.clients, list(self.task.modalities), self.config.multimodal, seed)

    def shared_state(self) -> dict[str, Tensor]:
        return self.local.state_dict()

    @property
    def learner(self) -> Method:
        """The local method of the client whose turn it is."""
        return self.learners[self.turn.client.number]

    def begin_turn(self, epoch: int) -> None:
        self.learner.train()
        self.learner.start_epoch(epoch)

    def end_turn(self, epoch: int) -> None:
        self.learner.end_epoch(epoch)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        return self.learner.step(batch)

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.local.predict(inputs)
