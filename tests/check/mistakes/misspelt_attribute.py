"""A setting is read by another name.

Says: AttributeError: 'Config' object has no attribute 'aplha'
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class MisspeltAttribute(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    class Config(Method.Config):
        alpha: float = 0.1
        """Weight of the bonus (made up)."""

    def loss(self, out, batch):
        return super().loss(out, batch) * self.config.aplha  # here
