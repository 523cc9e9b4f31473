"""predict switches to training mode.

Says: predict gives another result the second time
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class PredictWithDropout(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def predict(self, inputs):  # here
        self.train()
        logits = self.net(inputs).fused
        self.eval()
        return {"fused": logits}
