"""attach forgets the run and the optimizer.

Says: attach does not keep the run: begin it with super().attach(run)
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class AttachWithoutSuper(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def attach(self, run):  # here
        self.num_seen = 0
