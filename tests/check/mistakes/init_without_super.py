"""__init__ makes a layer before the module exists.

Says: begin __init__ with super().__init__(config, task)
"""

from torch import nn

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class InitWithoutSuper(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def __init__(self, config, task):
        self.scale = nn.Linear(1, 1)  # here
        super().__init__(config, task)
