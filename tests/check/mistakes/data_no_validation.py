"""The validation list is empty.

Says: valid: expected a sample or more, got none
"""

import numpy as np

from benchmark.check.synthetic import Blobs
from benchmark.data import Split


class DataNoValidation(Blobs):
    def split(self, samples, valid_share):  # here
        return Split(np.arange(100), np.arange(0), np.arange(100, 150))
