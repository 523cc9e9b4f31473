"""A federated setting: clients that hold parts of train, rounds in which some learn, and the mean of what they learnt.

A round is an epoch. Each client of it starts from the global weights, trains for some passes over its own samples, and
the mean of their weights by number of samples is global again (FedAvg; McMahan et al., AISTATS 2017). What belongs to
one modality is averaged over those clients that trained it, and stays where none did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.data import Batch
from benchmark.errors import Problem, UserError
from benchmark.method import Method
from benchmark.model import Encoder
from benchmark.seeds import generator, seed_of
from benchmark.training import Run

LEAST = 2
"""Samples that a client has at least: batch normalisation needs two."""


def partition(labels: Tensor, num_clients: int, concentration: float, seed: int) -> list[Tensor]:
    """Divide samples among clients, each class by shares drawn from a symmetric Dirichlet distribution.

    Clients with fewer than two samples are then given some of the largest client's.

    Args:
        labels: class of every sample (N,), N at least twice the number of clients.
        num_clients: how many there are.
        concentration: of the distribution; the larger, the more alike the clients.
        seed: of the draws.

    Returns:
        The positions of each client's samples, in order.
    """
    random = np.random.default_rng(seed)
    classes = labels.cpu().numpy()
    parts: list[list[int]] = [[] for _ in range(num_clients)]
    for k in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == k))
        shares = random.dirichlet(np.full(num_clients, concentration))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, given in zip(parts, np.split(members, cuts), strict=True):
            part.extend(given.tolist())
    for part in parts:
        while len(part) < LEAST:
            part.append(max(parts, key=len).pop())
    return [torch.tensor(sorted(part)) for part in parts]


def assign_modalities(num_clients: int, modalities: Sequence[str], share: float, seed: int) -> list[tuple[str, ...]]:
    """Return what each client observes: a share of them everything, the others one modality each, by turns.

    Args:
        num_clients: how many there are.
        modalities: all there are.
        share: part of the clients that observe all, rounded to a whole number of them.
        seed: of the order in which clients are drawn.
    """
    order = np.random.default_rng(seed).permutation(num_clients)
    complete = round(share * num_clients)
    observed = [tuple(modalities)] * num_clients
    for turn, client in enumerate(order[complete:]):
        observed[client] = (modalities[turn % len(modalities)],)
    return observed


def owner(name: str, modalities: Iterable[str]) -> str | None:
    """Return the modality that a parameter or buffer belongs to by a part of its dotted name, `x` or `..._x`; or none.

    For `encoders.audio.conv.weight`, `head.slices.audio` and `prototypes_audio` it is audio.
    """
    known = list(modalities)
    found = (m for part in name.split(".") for m in known if part == m or part.endswith(f"_{m}"))
    return next(found, None)


class Average:
    """The weighted mean of several states {name: tensor}, each name over the states that have it.

    It is taken around the first state, so that the mean of equal states is that state in every bit. Whole numbers are
    rounded, truth values by majority.
    """

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        self._drift: dict[str, Tensor] = {}
        self._weight: dict[str, float] = {}

    @torch.no_grad()
    def add(self, state: Mapping[str, Tensor], weight: float) -> None:
        """Take in a state, which may change afterwards."""
        for name, value in state.items():
            exact = value if value.is_floating_point() else value.double()
            if name not in self._first:
                self._first[name] = value.clone()
                self._drift[name] = torch.zeros_like(exact)
                self._weight[name] = 0.0
            self._drift[name] += weight * (exact - self._first[name].to(exact.dtype))
            self._weight[name] += weight

    def mean(self) -> dict[str, Tensor]:
        """Return the mean of what was added, in the types that it had."""
        means = {}
        for name, first in self._first.items():
            value = first + self._drift[name] / self._weight[name]
            means[name] = (value if first.is_floating_point() else value.round()).to(first.dtype)
        return means


@contextmanager
def muted(module: nn.Module, modalities: Iterable[str], heard: Iterable[str]) -> Iterator[None]:
    """Let every encoder of a modality that is not heard give features of zero, and receive gradients of zero."""
    known, left = list(modalities), {None, *heard}
    silent = [
        part for name, part in module.named_modules() if isinstance(part, Encoder) and owner(name, known) not in left
    ]
    handles = [encoder.register_forward_hook(_zero) for encoder in silent]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zero(encoder: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
    return 0 * features


@dataclass(frozen=True)
class Client:
    """Who holds a part of train."""

    number: int
    run: Run
    """The run on its samples."""
    modalities: tuple[str, ...]
    """What it observes of them."""
    optimizers: Sequence[Optimizer]


@dataclass(frozen=True)
class Turn:
    """A client's training within a round."""

    client: Client
    modalities: tuple[str, ...]
    """What it trains on; the weights of no other leave it."""
    passes: int
    """How often it goes through its samples."""


class Federated(Method):
    """A method whose training is divided among clients. To be derived from.

    Must implement: `build_net`. May override: `shared_state`, `join`, `observed`, `turns`, `begin_turn`, `end_turn`,
    beside what any method may; by default every client minimises `loss` over the net. `turn` is the turn in hand.
    """

    class Config(Method.Config):
        clients: int = Field(default=10, ge=1)
        """Clients among which train is divided (released code of FedCMI)."""
        per_round: int = Field(default=2, ge=1)
        """Clients that train in a round, which is an epoch (released code of FedCMI)."""
        local_epochs: int | None = Field(default=None, ge=1)
        """Passes of a client over its samples in a round; None for as many as let a round serve about as many samples
        as an epoch of any other method, clients / per_round (ours; released code of FedCMI and CMSFed: 10)."""
        concentration: float = Field(default=5.0, gt=0)
        """Of the Dirichlet distribution that divides each class; large is IID (released code of FedCMI)."""
        keep_optimizer: bool = False
        """Let a client's optimizer keep momentum from one of its turns to the next (ours); False starts each turn
        without (released code)."""

        @model_validator(mode="after")
        def _fits(self) -> Federated.Config:
            if self.per_round > self.clients:
                raise ValueError(f"per_round at most clients, {self.clients}")
            return self

    config: Config
    turn: Turn

    def attach(self, run: Run) -> None:
        self.run = run
        count = self.config.clients
        if run.num_train < LEAST * count:
            expected = f"at least {LEAST} training samples for each of {count} clients"
            raise UserError(Problem("clients", expected, f"{run.num_train} samples", "Give clients=..."))
        parts = partition(run.train_labels, count, self.config.concentration, seed_of(run.seed, "clients"))
        self.clients: list[Client] = []
        for rows, modalities in zip(parts, self.observed(), strict=True):
            registered, part = len(run.optimizers), run.subset(rows)
            self.join(part)
            self.clients.append(Client(len(self.clients), part, modalities, run.optimizers[registered:]))

    def observed(self) -> Sequence[tuple[str, ...]]:
        """Return the modalities that each client observes. Default: all."""
        return [tuple(self.task.modalities)] * self.config.clients

    def join(self, part: Run) -> None:
        """Make what a client trains with, from the run on its samples. Default: an optimizer over the net."""
        part.optimizer(self.net.parameters())

    def shared_state(self) -> dict[str, Tensor]:
        """Return the tensors, by reference, that clients are sent and send back. Default: those of the net."""
        return self.net.state_dict()

    def turns(self, epoch: int) -> Iterable[Turn]:
        """Return which clients train in a round, and on what. Default: random ones, on all that they observe."""
        drawn = torch.randperm(len(self.clients), generator=generator(self.run.seed, epoch, "selected"))
        chosen = [self.clients[number] for number in drawn[: self.config.per_round].tolist()]
        return [Turn(client, client.modalities, self.passes) for client in chosen]

    @property
    def passes(self) -> int:
        """How often a client goes through its samples in a round."""
        return self.config.local_epochs or round(self.config.clients / self.config.per_round)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of a round, client after client; afterwards the net is the round's result."""
        start, average, turns, names = self.snapshot(), Average(), list(self.turns(epoch)), list(self.task.modalities)
        for turn in turns:
            yield from self.train_turn(turn, epoch, start)
            sent = {None, *turn.modalities}
            learnt = {name: x for name, x in self.shared_state().items() if owner(name, names) in sent}
            average.add(learnt, turn.client.run.num_train)
        self.load({**start, **average.mean()})
        self.run.log(**{f"trained/{m}": sum(m in turn.modalities for turn in turns) / len(turns) for m in names})

    def train_turn(self, turn: Turn, epoch: int, start: Mapping[str, Tensor]) -> Iterator[Batch]:
        """Yield the batches of a client that starts from given weights; afterwards the net is the client's."""
        self.load(start)
        self.turn = turn
        with muted(self, self.task.modalities, turn.modalities):
            self.begin_turn(epoch)
            for number in range(turn.passes):
                yield from turn.client.run.train_batches(epoch, salt=number)
            self.end_turn(epoch)
        if not self.config.keep_optimizer:
            for optimizer in turn.client.optimizers:
                optimizer.state.clear()

    def begin_turn(self, epoch: int) -> None:
        """Called before a client's first batch. Default: take its optimizer, and rest encoders not trained."""
        self.optimizer, *_ = self.turn.client.optimizers
        for modality, encoder in self.net.encoders.items():
            encoder.requires_grad_(modality in self.turn.modalities)
            encoder.train(modality in self.turn.modalities)

    def end_turn(self, epoch: int) -> None:
        """Called after a client's last batch."""

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the shared state."""
        return {name: value.clone() for name, value in self.shared_state().items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put values into the shared state."""
        for name, value in self.shared_state().items():
            value.copy_(state[name])
