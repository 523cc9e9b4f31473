"""Random numbers depend on the time.

Says: the same seed gives another history: draw from torch's global generator
"""

import time

import torch

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class SeededByTheClock(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def loss(self, out, batch):
        draw = torch.Generator().manual_seed(time.perf_counter_ns())  # here
        return super().loss(out, batch) * (1 + torch.rand((), generator=draw))
