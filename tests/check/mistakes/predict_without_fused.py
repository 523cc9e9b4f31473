"""predict calls its logits otherwise.

Says: predict: expected 'fused' among its keys, got 'logits'
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class PredictWithoutFused(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def predict(self, inputs):  # here
        return {"logits": self.net(inputs).fused}
