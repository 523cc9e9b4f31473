"""The class does not say where it is from.

Says: expected `reference = Reference(title, venue, year)` in the class
"""

from benchmark.method import Method
from benchmark.model import concat_net


class WithoutReference(Method):  # here
    def build_net(self, task):
        return concat_net(task)

    reference = None
