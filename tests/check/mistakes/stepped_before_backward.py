"""The optimizer steps between two backward passes through one graph.

Says: something that backward needs was changed in place
"""

from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class SteppedBeforeBackward(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def step(self, batch):
        out = self.net(batch.inputs)
        loss = F.cross_entropy(out.fused, batch.labels)
        self.optimizer.zero_grad()
        loss.backward(retain_graph=True)
        self.optimizer.step()
        loss.square().backward()  # here
        self.optimizer.step()
        return {"loss": loss.detach()}
