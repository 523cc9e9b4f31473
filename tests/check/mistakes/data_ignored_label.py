"""A label is -100, which torch ignores.

Says: labels: expected class indices from 0 to 2, got 1 others: -100 of blob4
"""

from benchmark.check.synthetic import Blobs


class DataIgnoredLabel(Blobs):
    def load(self):  # here
        samples = super().load()
        samples.labels[4] = -100
        return samples
