"""One sample holds a NaN.

Says: audio: expected finite numbers, got NaN or infinity in 1 samples: blob4
"""

import torch

from benchmark.check.synthetic import Blobs


class DataNan(Blobs):
    def load(self):  # here
        samples = super().load()
        samples.inputs["audio"][4] = torch.nan
        return samples
