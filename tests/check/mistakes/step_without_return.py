"""step ends without return.

Says: step returned nothing, expected a dict of scalars
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class StepWithoutReturn(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def step(self, batch):  # here
        super().step(batch)
