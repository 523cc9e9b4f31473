"""A setting without meaning and source.

Says: expected a string under each setting with its meaning and source, got none for alpha
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class UndocumentedSetting(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    class Config(Method.Config):
        alpha: float = 0.1  # here
