"""The data set has no split.

Says: DataAbstractMethod to implement split, got no such method
"""

from benchmark.check.synthetic import Blobs
from benchmark.data import Dataset, Samples, TaskSpec


class DataAbstractMethod(Dataset):  # here
    about = "made up"

    @property
    def task(self) -> TaskSpec:
        return Blobs(Blobs.Config()).task

    def fingerprint(self) -> str:
        return "made up"

    def load(self) -> Samples:
        return Blobs(Blobs.Config()).load()
