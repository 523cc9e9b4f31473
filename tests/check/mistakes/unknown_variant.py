"""A variant has a setting that the method has not.

Says: method unknown_variant: expected a known setting, got 'gamma'
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class UnknownVariant(Method):  # here
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    variants = ({}, {"gamma": 1.0})
