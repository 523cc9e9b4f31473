"""build_net ends without return.

Says: build_net returned nothing, expected a MultimodalNet: end it with `return`
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class BuildNetWithoutReturn(Method):
    reference = Reference("An example")

    def build_net(self, task):  # here
        concat_net(task)
