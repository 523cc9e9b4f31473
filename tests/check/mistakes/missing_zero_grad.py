"""Gradients add up over all steps.

Says: gradients of one step are still there in the next: call self.optimizer.zero_grad() before run.backward
"""

from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class MissingZeroGrad(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def step(self, batch):
        out = self.net(batch.inputs)
        loss = F.cross_entropy(out.fused, batch.labels)
        self.run.backward(loss)  # here
        self.optimizer.step()
        return {"loss": loss.detach()}
