"""The head has a class too few.

Says: the head's fused logits: expected (16, 3), got (16, 2)
"""

from benchmark.method import Method, Reference
from benchmark.model import ConcatHead, MultimodalNet


class HeadOfWrongWidth(Method):
    reference = Reference("An example")

    def build_net(self, task):  # here
        return MultimodalNet(task.build_encoders(), lambda dims: ConcatHead(dims, task.num_classes - 1))
