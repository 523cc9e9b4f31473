"""Switched off, it still changes the loss.

Says: switched off, it does not equal its baseline bit for bit
"""

from benchmark.method import Method, OffSwitch, Reference
from benchmark.model import concat_net


class OffSwitch(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    off_switches = (OffSwitch({"weight": 0.0}, "concat"),)

    class Config(Method.Config):
        weight: float = 1.0
        """Weight of the bonus (made up)."""

    def loss(self, out, batch):  # here
        return super().loss(out, batch) * (1.1 + self.config.weight)
