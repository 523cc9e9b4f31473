"""A class is tested and never trained.

Says: classes class 2 are not in train
"""

from dataclasses import replace

from benchmark.check.synthetic import Blobs


class DataAbsentClass(Blobs):
    def split(self, samples, valid_share):  # here
        split = super().split(samples, valid_share)
        return replace(split, train=split.train[split.train % 3 != 2])
