"""How strong the gradients of each encoder are: watched while training, without touching it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEPS = 4
"""Steps of an epoch that are watched, evenly apart."""


@dataclass(frozen=True)
class _Seen:
    """A parameter and the gradient it had before a step."""

    parameter: nn.Parameter
    gradient: weakref.ref[Tensor] | None
    version: int

    @classmethod
    def of(cls, parameter: nn.Parameter) -> _Seen:
        if parameter.grad is None:
            return cls(parameter, None, 0)
        # a weak reference, since a strong one would keep last step's gradients in memory
        return cls(parameter, weakref.ref(parameter.grad), parameter.grad._version)

    def fresh(self) -> Tensor | None:
        """Return the gradient if the step wrote it; one left over from an earlier step is none."""
        now = self.parameter.grad
        stale = now is not None and self.gradient is not None and self.gradient() is now
        return None if now is None or (stale and now._version == self.version) else now


class GradientMeter:
    """The mean norm of each encoder's gradients over some steps of an epoch.

    What a parameter's `.grad` holds when the step is over is what its last optimizer step used, edits included. An
    encoder whose gradients the step did not write, cleared or left at zero, because the method trains it at another
    time or earlier in the step, is not counted in that step; one that is never counted has no norm. Reads only:
    training ends in the same bits.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], steps_per_epoch: int) -> None:
        """Watch encoders.

        Args:
            encoders: {modality: encoder}.
            steps_per_epoch: of the plain loop; a method that takes more is watched as often for each of them.
        """
        self._encoders = encoders
        self._every = max(1, steps_per_epoch // STEPS)
        self._step = 0
        self._before: dict[str, list[_Seen]] = {}
        self._norms: dict[str, list[Tensor]] = {modality: [] for modality in encoders}

    def before_step(self) -> None:
        """Look at the gradients that are there, if the coming step is watched."""
        if self._step % self._every == 0:
            self._before = {m: [_Seen.of(p) for p in encoder.parameters()] for m, encoder in self._encoders.items()}

    def after_step(self) -> None:
        """Measure the gradients that the step wrote, on the device."""
        for modality, seen in self._before.items():
            gradients = [gradient for one in seen if (gradient := one.fresh()) is not None]
            if gradients:
                self._norms[modality].append(norm(gradients))
        self._before = {}
        self._step += 1

    def means(self) -> dict[str, float]:
        """Return {modality: mean norm}, without the encoders that were never counted and norms beyond float32."""
        found = {m: torch.stack(norms).tolist() for m, norms in self._norms.items() if norms}
        counted = {m: [value for value in values if value > 0] for m, values in found.items()}
        means = {m: sum(values) / len(values) for m, values in counted.items() if values}
        return {modality: mean for modality, mean in means.items() if math.isfinite(mean)}


@torch.no_grad()
def norm(gradients: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of several tensors taken as one vector, a scalar on their device."""
    total: Tensor = torch.stack(torch._foreach_norm(list(gradients))).norm()
    return total
