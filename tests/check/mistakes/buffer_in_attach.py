"""A buffer of the size of train is made where that is known.

Says: attach makes memory, which a method that is loaded for evaluation, without a run, has no place for
"""

import torch

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class BufferInAttach(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def attach(self, run):
        super().attach(run)
        self.register_buffer("memory", torch.zeros(run.num_train))  # here
