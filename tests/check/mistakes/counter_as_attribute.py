"""A schedule counts steps in a plain attribute.

Says: self.passed is 6 after the first epoch and 0 when the run is resumed there: keep it in a buffer made in
__init__, or return it from get_extra_state
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class CounterAsAttribute(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def __init__(self, config, task):
        super().__init__(config, task)
        self.passed = 0  # here

    def loss(self, out, batch):
        self.passed += 1
        return super().loss(out, batch) * (1 + self.passed / 100)
