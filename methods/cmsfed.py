"""CMSFed: the server chooses clients, and of those ahead in one modality it trains only the other.

Class prototypes c_m of each modality are means of the features of the clients of the last round, by samples, under the
weights that each had learnt. With d the Euclidean distance, s_m = -d(u_m, c_m) are logits. A client minimises

    L = CE(z, y) + alpha * CE(s_w, y)      w the modality of the smaller sum over the batch of softmax(s_m)[y]

or, chosen for modality m alone, CE(z, y) + alpha * CE(s_m, y) with the other features at zero; it sends no weights of
the other encoder. Each round's clients come from a greedy choice: over the distances D between what clients moved their
encoders by when they last trained, the next one is

    j = argmin over r in R of sum over clients i of min(least_i, D[i, r]),     least_i = min over the chosen of D[i, .]

with R a random part of those left. b is a client's accuracy in the first modality over that in the second, by the
nearest of its own class means; its mean by samples tells which modality is weak globally. The same choice over the
distances of the weak modality's moves, with nearest distances of its own, gives j_w; if j_w is ahead by more than the
threshold, it trains the weak modality alone, otherwise j trains both. Before the first round every client is asked: its
class means under the initial weights are its prototypes for one pass over its samples, whose weights are forgotten.

Cost: a round of `federated`; one more pass over train in the first epoch, counted in the samples; a forward pass over
each client's samples after its turn; and what every client last moved by, encoders times clients, kept in memory and in
checkpoints.

Paper: By Fan et al.; before, Client-wise Modality Selection for Balanced Multi-modal Federated Learning. Clients that
are ahead in one modality train and send only the other; the choice minimises distances between clients' gradients. The
text was not available.

Released code: Does not average: uploaded weights are references to one live network, so the last client's win. A view
of the distances is overwritten while clients are chosen; a client's move of one encoder is noted only when it trained
that one alone; a class that is absent gets the prototype zero.

Ours: The released rules and defaults as they were meant: means of copies; distances are read only. A class that no
client has keeps its prototype, and no modality counts as right on fewer than one sample. The choice picks 1, then 10,
of {0, 1, 10, 11}, and equals the official function, its views copied, on 500 random draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Reference
from benchmark.model import Encoder, MultimodalNet, Outputs, concat_net, true_class_probability
from benchmark.seeds import seed_of

from ._features import encode_all
from ._federated import Federated, Turn
from ._prototypes import similarities

Matrix = NDArray[np.float64]


def choose(
    joint: Matrix,
    weak: Matrix,
    ahead: Matrix,
    threshold: float,
    count: int,
    candidates: int,
    random: np.random.Generator,
) -> list[tuple[int, bool]]:
    """Choose clients greedily, each for everything or for the weak modality alone.

    Args:
        joint: distances between clients' moves (N, N).
        weak: distances between their moves of the weak modality (N, N).
        ahead: how far the other modality is ahead at each client, a ratio (N,).
        threshold: above which a client trains the weak modality alone.
        count: how many to choose.
        candidates: clients that are drawn for each choice.
        random: draws them.

    Returns:
        The chosen in order, and whether each is for the weak modality alone. Of equals the first is chosen.
    """
    chosen: list[tuple[int, bool]] = []
    left = list(range(len(joint)))
    least, least_weak = np.full(len(joint), np.inf), np.full(len(joint), np.inf)
    for _ in range(count):
        drawn = sorted(random.choice(left, min(candidates, len(left)), replace=False).tolist())
        pick = nearest_to_all(joint, least, drawn)
        pick_weak = nearest_to_all(weak, least_weak, drawn)
        alone = bool(ahead[pick_weak] > threshold)
        if alone:
            pick, least_weak = pick_weak, np.minimum(least_weak, weak[:, pick_weak])
        else:
            least = np.minimum(least, joint[:, pick])
        chosen.append((pick, alone))
        left.remove(pick)
    return chosen


def nearest_to_all(distances: Matrix, least: Matrix, drawn: list[int]) -> int:
    """Return which of those drawn leaves the smallest sum of distances to the nearest chosen one."""
    return drawn[int(np.minimum(least[:, None], distances[:, drawn]).sum(0).argmin())]


def flat(encoder: Encoder) -> Tensor:
    """Return a copy of all parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


class CMSFed(Federated):
    reference = Reference(
        "Overcome Modal Bias in Multi-modal Federated Learning via Balanced Modality Selection",
        "ECCV",
        2024,
        "fanyunfeng-bit/Balanced-Modality-Selection-in-MFL @ 14c762c : server/mmdrop.py, server/base.py, "
        "client/mmdrop.py",
    )
    modalities = (2, 2)
    variants = (
        {"clients": 4, "per_round": 2, "local_epochs": 3},
        {"clients": 4, "per_round": 3, "local_epochs": 3, "threshold": 1.1},
    )
    ablations = ({"alpha": 0.0}, {"threshold": 1e9}, {"concentration": 1e8})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_each_pick_is_the_best_of_all_that_are_left",
        paper_test="test_two_of_two_pairs_of_points_are_one_of_each",
    )

    class Config(Federated.Config):
        clients: int = Field(default=20, ge=1)
        """Clients among which train is divided (released script)."""
        per_round: int = Field(default=5, ge=1)
        """Clients that train in a round, which is an epoch (released script)."""
        concentration: float = Field(default=3.0, gt=0)
        """Of the Dirichlet distribution that divides each class (released script: 3, or 1e8 for IID)."""
        alpha: float = Field(default=2.0, ge=0)
        """Weight of the prototype loss (released script)."""
        threshold: float = Field(default=1.5, ge=1)
        """Ratio of accuracies above which a client trains its weak modality alone (released script: 1.5 or 2)."""
        candidates: float = Field(default=0.1, ge=0, le=1)
        """Share of all clients that is drawn for each choice, at least `per_round` of them (released code)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        net = concat_net(task)
        self.register_buffer("imbalance", torch.ones(self.config.clients))
        for modality in task.modalities:
            encoder = net.encoder(modality)
            self.register_buffer(f"prototypes_{modality}", torch.zeros(task.num_classes, encoder.dim))
            self.register_buffer(f"moves_{modality}", torch.zeros(self.config.clients, len(flat(encoder))))
        return net

    def prototypes(self, modality: str) -> Tensor:
        """Return the class prototypes of a modality, (K, D)."""
        return self.get_buffer(f"prototypes_{modality}")

    def moves(self, modality: str) -> Tensor:
        """Return what each client last moved a modality's encoder by, (clients, parameters)."""
        return self.get_buffer(f"moves_{modality}")

    # --- the server --------------------------------------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[Batch]:
        if epoch == 0:
            yield from self.probe()
        self.probing = False
        self.forget_features()
        yield from super().batches(epoch)
        self.refresh_prototypes()

    def probe(self) -> Iterator[Batch]:
        """Measure every client under the initial weights, and yield a pass over its samples to learn its moves."""
        self.probing = True
        self.forget_features()
        start = self.snapshot()
        for client in self.clients:
            yield from self.train_turn(Turn(client, client.modalities, 1), 0, start)
        self.load(start)
        self.refresh_prototypes()

    def turns(self, epoch: int) -> Iterable[Turn]:
        first, second = self.task.modalities
        imbalance = self.imbalance_of_clients()
        overall = np.average(imbalance, weights=[client.run.num_train for client in self.clients])
        weak, ahead = (second, imbalance) if overall > 1 else (first, 1 / imbalance)
        distances = {m: self.distances(m) for m in (first, second)}
        joint = np.hypot(distances[first], distances[second])
        count = self.config.per_round
        candidates = max(count, int(self.config.candidates * len(self.clients)))
        random = np.random.default_rng(seed_of(self.run.seed, epoch, "candidates"))
        chosen = choose(joint, distances[weak], ahead, self.config.threshold, count, candidates, random)
        self.run.log(imbalance=float(overall))
        return [
            Turn(self.clients[number], (weak,) if alone else (first, second), self.passes) for number, alone in chosen
        ]

    def imbalance_of_clients(self) -> Matrix:
        """Return each client's accuracy in the first modality over that in the second, (clients,)."""
        return self.get_buffer("imbalance").double().cpu().numpy()

    def distances(self, modality: str) -> Matrix:
        """Return the Euclidean distances between clients' last moves of an encoder, (clients, clients)."""
        moves = self.moves(modality)
        exact = "donot_use_mm_for_euclid_dist"  # products of vectors lose small distances
        return torch.cdist(moves, moves, compute_mode=exact).double().cpu().numpy()

    def forget_features(self) -> None:
        """Begin new sums of features."""
        self.sums = {m: torch.zeros_like(self.prototypes(m)) for m in self.task.modalities}
        self.counts = {m: torch.zeros(self.task.num_classes, device=self.run.device) for m in self.task.modalities}

    def refresh_prototypes(self) -> None:
        """Let prototypes be the mean features of the clients that trained; a class without samples keeps its own."""
        for modality, sums in self.sums.items():
            counts = self.counts[modality][:, None]
            prototypes = self.prototypes(modality)
            prototypes.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), prototypes))

    # --- a client ----------------------------------------------------------------------------------------------

    def train_turn(self, turn: Turn, epoch: int, start: Mapping[str, Tensor]) -> Iterator[Batch]:
        self.load(start)
        before = {m: flat(self.net.encoder(m)) for m in turn.modalities}
        if self.probing:
            self.measure(turn)
        yield from super().train_turn(turn, epoch, start)
        for modality, parameters in before.items():
            self.moves(modality)[turn.client.number] = parameters - flat(self.net.encoder(modality))
        if not self.probing:
            self.measure(turn)

    @torch.no_grad()
    def measure(self, turn: Turn) -> None:
        """Note a client's class means and imbalance under the net as it is."""
        encoded, labels = encode_all(self.net, turn.client.run.train_in_order())
        members = F.one_hot(labels, self.task.num_classes).float()  # (n, K)
        counts, right = members.sum(0), []
        self.own, self.known = {}, counts > 0
        for modality, features in encoded.items():
            sums = members.T @ features
            self.own[modality] = sums / counts.clamp_min(1)[:, None]
            logits = similarities(features, self.own[modality]).masked_fill(~self.known, -torch.inf)
            right.append((logits.argmax(1) == labels).sum().clamp_min(1))
            if modality in turn.modalities:
                self.sums[modality] += sums
                self.counts[modality] += counts
        self.get_buffer("imbalance")[turn.client.number] = right[0] / right[1]

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        loss = super().loss(out, batch)
        if not self.config.alpha:
            return loss
        logits = [self.logits(m, out.features[m]) for m in self.turn.modalities]
        return loss + self.config.alpha * weakest_loss(logits, batch.labels)

    def logits(self, modality: str, features: Tensor) -> Tensor:
        """Return the logits by a modality's prototypes, when asked the client's own: (B, D) -> (B, K)."""
        if self.probing:
            return similarities(features, self.own[modality]).masked_fill(~self.known, -torch.inf)
        return similarities(features, self.prototypes(modality))


def weakest_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return the cross-entropy of whichever logits (B, K) are least sure of the labels; zero for two that tie."""
    losses = [F.cross_entropy(s, labels) for s in logits]
    if len(losses) == 1:
        return losses[0]
    first, second = (true_class_probability(s.detach(), labels).sum() for s in logits)
    return torch.where(first < second, losses[0], torch.where(second < first, losses[1], 0.0))
