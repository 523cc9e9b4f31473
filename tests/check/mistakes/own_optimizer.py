"""The optimizer is made by torch and unknown to the trainer.

Says: no optimizer is from run.optimizer(params), self.optimizer is not from there
"""

import torch

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class OwnOptimizer(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def attach(self, run):
        self.run = run
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)  # here
