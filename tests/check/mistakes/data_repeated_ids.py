"""Two samples have one name.

Says: ids: expected an id of its own for each sample, got 1 that repeat: blob0
"""

from dataclasses import replace

from benchmark.check.synthetic import Blobs


class DataRepeatedIds(Blobs):
    def load(self):  # here
        samples = super().load()
        return replace(samples, ids=["blob0", "blob0", *samples.ids[2:]])
