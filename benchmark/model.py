"""Networks: the encoders of a task under the head of a method.

Shapes: B batch, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from benchmark.data import TaskSpec

    HeadT_co = TypeVar("HeadT_co", bound="Head", default="Head", covariant=True)
else:
    from typing import TypeVar

    HeadT_co = TypeVar("HeadT_co", covariant=True)  # a default is for type checkers, before Python 3.13


Init = Literal["default", "released"]
"""How random weights start: by torch's layers and our encoders, or all of them by `draw_weights`."""


@dataclass(frozen=True)
class Outputs:
    """What a network computes for one batch."""

    features: dict[str, Tensor]
    """Pooled encoder output of each modality, (B, D)."""
    unimodal: dict[str, Tensor]
    """Logits of each modality alone, (B, K). Each head defines what that means."""
    fused: Tensor
    """Logits of all modalities together, (B, K)."""


class SelfDrawn(nn.Module):
    """A module with parameters of its own that knows how the field's code would draw them."""

    def draw(self) -> None:
        """Draw them anew, as `draw_weights` draws the layers of torch."""
        raise NotImplementedError


class Encoder(nn.Module):
    """Maps one modality's input to features (B, dim). Subclasses set `dim`."""

    dim: int
    pretrained: bool = False
    """Whether its weights come from files, and so must not be drawn anew."""


def draw_weights(module: nn.Module, but: type[nn.Module] | None = None) -> None:
    """Draw weights as the field's audio-visual code does: Kaiming-normal convolutions (fan out, ReLU), Xavier-normal
    linear layers, zero biases, and normalisations that start as the identity. Other layers stay as they are.

    Args:
        module: whose layers to draw.
        but: a kind of module that is left alone, with all that it holds.
    """
    left = {id(part) for layer in module.modules() if but and isinstance(layer, but) for part in layer.modules()}
    for layer in module.modules():
        if id(layer) in left:
            continue
        if isinstance(layer, SelfDrawn):
            layer.draw()
            continue
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def conv_block(
    kind: type[nn.Conv1d | nn.Conv2d], before: int, after: int, stride: int = 1, kernel: int = 3
) -> nn.Sequential:
    """Return a convolution of one or two dimensions, batch normalisation and ReLU."""
    norm = nn.BatchNorm1d if kind is nn.Conv1d else nn.BatchNorm2d
    return nn.Sequential(kind(before, after, kernel, stride, kernel // 2, bias=False), norm(after), nn.ReLU())


def scaled(width: int, factor: float) -> int:
    """Return a number of channels times `factor`, rounded, at least 1."""
    return max(round(factor * width), 1)


class Head(nn.Module):
    """Maps features {modality: (B, D)} to `Outputs`."""

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        raise NotImplementedError


class ConcatHead(Head, SelfDrawn):
    """One linear layer on the concatenated features.

    The logits of one modality are its slice of that layer, `u_m @ W_m.T + b / M`, so that they sum
    to the fused logits exactly.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        widths = list(dims.values())
        layer = nn.Linear(sum(widths), num_classes)
        self.slices = nn.ParameterDict(
            {m: nn.Parameter(w.clone()) for m, w in zip(dims, layer.weight.detach().split(widths, 1), strict=True)}
        )
        self.bias = nn.Parameter(layer.bias.detach().clone())

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the slices as the one layer that they are."""
        slices = list(self.slices.values())
        whole = nn.init.xavier_normal_(torch.cat(slices, 1))
        for part, drawn in zip(slices, whole.split([part.shape[1] for part in slices], 1), strict=True):
            part.copy_(drawn)
        self.bias.zero_()

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        share = self.bias / len(self.slices)
        unimodal = {m: F.linear(u, self.slices[m], share) for m, u in features.items()}
        return Outputs(features, unimodal, sum_logits(unimodal.values()))


class LateHead(Head):
    """A linear layer for each modality; the fused logits are the sum."""

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({m: nn.Linear(dim, num_classes) for m, dim in dims.items()})

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = {m: self.layers[m](u) for m, u in features.items()}
        return Outputs(features, unimodal, sum_logits(unimodal.values()))


class HiddenBank(SelfDrawn):
    """The hidden layers of n classifiers on the same features, kept as one wide layer.

    Shapes: H units of a classifier. Rows of `weight` and `bias` are trained, rows of `frozen_weight` and `frozen_bias`
    never; both hold the classifiers in the order in which they were added, trained ones first.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    frozen_weight: Tensor
    frozen_bias: Tensor

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        first = nn.Linear(dim, hidden)
        self.hidden = hidden
        self.released = False
        self.weight = nn.Parameter(first.weight.detach())  # (n * H, D)
        self.bias = nn.Parameter(first.bias.detach())
        self.register_buffer("frozen_weight", torch.empty(0, dim))
        self.register_buffer("frozen_bias", torch.empty(0))

    @property
    def count(self) -> int:
        """How many classifiers there are."""
        return (len(self.bias) + len(self.frozen_bias)) // self.hidden

    @torch.no_grad()
    def draw(self) -> None:
        """Draw every classifier anew, Xavier-normal with a zero bias, and from now on those that grow too."""
        self.released = True
        for weight in (*self.weight.split(self.hidden), *self.frozen_weight.split(self.hidden)):
            if len(weight):
                weight.copy_(nn.init.xavier_normal_(torch.empty_like(weight)))
        self.bias.zero_()
        self.frozen_bias.zero_()

    def grow(self, trained: bool = True) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Append a classifier, drawn as the first one was.

        Returns:
            The parameters that others have replaced, as pairs of old and new; the new begin with the old.
        """
        drawn = nn.Linear(self.weight.shape[1], self.hidden)
        if self.released:
            draw_weights(drawn)
        weight, bias = (part.detach().to(self.weight.device) for part in (drawn.weight, drawn.bias))
        if not trained:
            self.frozen_weight = torch.cat([self.frozen_weight, weight])
            self.frozen_bias = torch.cat([self.frozen_bias, bias])
            return []
        old = (self.weight, self.bias)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), weight]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), bias]))
        return list(zip(old, (self.weight, self.bias), strict=True))

    def forward(self, u: Tensor) -> Tensor:
        """Return the activations of all classifiers: (B, D) -> (B, n, H)."""
        states = F.linear(u, self.weight, self.bias)
        if len(self.frozen_bias):
            states = torch.cat([states, F.linear(u, self.frozen_weight, self.frozen_bias)], 1)
        activations: Tensor = states.relu().unflatten(1, (-1, self.hidden))
        return activations


class SharedOutputHead(Head):
    """Hidden layers of each modality's own before one output layer that all modalities share.

    A modality's logits are the sum over its classifiers, `output(relu(hidden(u)))`; it starts with one and may be
    given more (`banks[m].grow`). The fused logits are the sum over modalities.
    """

    def __init__(self, dims: Mapping[str, int], hidden: int, num_classes: int) -> None:
        super().__init__()
        self.banks = nn.ModuleDict({m: HiddenBank(dim, hidden) for m, dim in dims.items()})
        self.output = nn.Linear(hidden, num_classes)

    def bank(self, modality: str) -> HiddenBank:
        """Return the hidden layers of a modality."""
        bank = self.banks[modality]
        assert isinstance(bank, HiddenBank)
        return bank

    def logits_of(self, states: Tensor) -> Tensor:
        """Return the summed logits (B, K) of n classifiers from their activations (B, n, H).

        The output layer is linear and shared, so the sum of n heads is one head on the summed activations.
        """
        return F.linear(states.sum(1), self.output.weight, states.shape[1] * self.output.bias)

    def merge(self, unimodal: dict[str, Tensor]) -> Tensor:
        """Return the fused logits (B, K) from those of each modality: their sum."""
        return sum_logits(unimodal.values())

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = {m: self.logits_of(self.banks[m](u)) for m, u in features.items()}
        return Outputs(features, unimodal, self.merge(unimodal))


class MultimodalNet(nn.Module, Generic[HeadT_co]):
    """Encoders and a head. Encoders may run in bfloat16; features and the head are always float32."""

    head: HeadT_co

    def __init__(self, encoders: Mapping[str, Encoder], head: Callable[[dict[str, int]], HeadT_co]) -> None:
        """Put encoders under a head.

        Args:
            encoders: one for each modality, from `TaskSpec.build_encoders`.
            head: makes the head from the feature widths {modality: D}.
        """
        super().__init__()
        self.low_precision = False
        self.encoders = nn.ModuleDict(dict(encoders))
        self.head = head({modality: encoder.dim for modality, encoder in encoders.items()})

    def use_bfloat16(self) -> None:
        """Run the encoders under bfloat16 autocast with channels-last weights."""
        self.low_precision = True
        for module in self.encoders.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality."""
        encoder = self.encoders[modality]
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the features {modality: (B, D)} of the modalities this net has encoders for."""
        device = next(iter(inputs.values())).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.low_precision):
            features = {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}
        return {m: u.float() if self.low_precision else u for m, u in features.items()}

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        outputs: Outputs = self.head(self.encode(inputs))
        return outputs


def concat_net(task: TaskSpec) -> MultimodalNet[ConcatHead]:
    """Return the task's encoders under a `ConcatHead`: the network of the plain joint baseline."""
    return MultimodalNet(task.build_encoders(), lambda dims: ConcatHead(dims, task.num_classes))


def sum_logits(logits: Iterable[Tensor]) -> Tensor:
    """Add logits (B, K) in order, starting from the first (no zero is added)."""
    total, *rest = logits
    for term in rest:
        total = total + term
    return total


def summed_cross_entropy(unimodal: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Return the sum over modalities of CE(z_m, y), a scalar, from logits {modality: (B, K)} and labels (B,)."""
    return sum_logits(F.cross_entropy(logits, labels) for logits in unimodal.values())


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return softmax(logits)[y] of each sample: (B, K) and (B,) -> (B,)."""
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]
