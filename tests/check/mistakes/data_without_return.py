"""load ends without return.

Says: load returned nothing: end it with `return Samples(...)`
"""

from benchmark.check.synthetic import Blobs


class DataWithoutReturn(Blobs):
    def load(self):  # here
        super().load()
