"""build_net is spelt otherwise.

Says: AbstractMethod to implement build_net, got no such method
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class AbstractMethod(Method):  # here
    reference = Reference("An example")

    def build_network(self, task):
        return concat_net(task)
