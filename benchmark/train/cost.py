"""What a model costs: parameters, floating-point operations of one prediction, and memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.method import Method


def num_parameters(module: nn.Module) -> int:
    """Return how many numbers a module's parameters hold, frozen ones included; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def flops(method: Method, inputs: Mapping[str, Tensor]) -> int:
    """Return the floating-point operations of predicting one sample.

    Counted as torch does: convolutions, matrix products and attention, a multiplication and an addition being two;
    what is done element by element (normalisation, ReLU, sums of logits) is not.

    Args:
        method: on the device of `inputs`; its mode and state stay.
        inputs: {modality: (B, ...)}, after `Dataset.transform`; the first sample is used.
    """
    was_training = method.training
    method.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            method.predict({modality: x[:1] for modality, x in inputs.items()})
    finally:
        method.train(was_training)
    return int(counter.get_total_flops())


def start_memory(device: torch.device) -> None:
    """Forget the peak of the GPU's memory, before a run."""
    if device.type == "cuda":
        torch.cuda.init()  # before it there is no peak to forget
        torch.cuda.reset_peak_memory_stats(device)


def load_average(seconds: float = 0.0) -> float:
    """Return how many processes have wanted a core of this machine, on average, ours included.

    Args:
        seconds: for how long, as nearly as the system keeps it: 1, 5 or 15 minutes.
    """
    short, middle, long = os.getloadavg()
    return short if seconds < 120 else middle if seconds < 600 else long


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return peak memory in bytes: of this process ("process", libraries included) and of its tensors on a GPU ("gpu").

    The process is counted since it began: runs that share one share the figure.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # kibibytes on Linux
    peaks = {"process": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if device.type == "cuda":
        peaks["gpu"] = torch.cuda.max_memory_allocated(device)
    return peaks
