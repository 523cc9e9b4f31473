"""A layer is made in attach.

Says: attach makes gate.bias, gate.weight, which a method that is loaded for evaluation
"""

from torch import nn

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class ModuleInAttach(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def attach(self, run):
        self.gate = nn.Linear(1, 1)  # here
        self.run = run
        self.optimizer = run.optimizer(self.parameters())
