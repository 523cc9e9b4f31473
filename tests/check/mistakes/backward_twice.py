"""Two losses go back through one graph.

Says: backward frees what it went through: add the losses and go back once
"""

from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class BackwardTwice(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def step(self, batch):
        out = self.net(batch.inputs)
        self.optimizer.zero_grad()
        for logits in (out.fused, *out.unimodal.values()):
            self.run.backward(F.cross_entropy(logits, batch.labels))  # here
        self.optimizer.step()
        return {}
