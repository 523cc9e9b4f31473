"""A sample is in train and in test.

Says: split: expected each sample in one part, once, got 10 more often: blob90 (valid, test)
"""

import numpy as np

from benchmark.check.synthetic import Blobs
from benchmark.data import Split


class DataOverlap(Blobs):
    def split(self, samples, valid_share):  # here
        return Split(np.arange(80), np.arange(80, 100), np.arange(90, 150))
