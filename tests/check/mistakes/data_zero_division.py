"""The transform divides by the loudest value, which is 0 in one sample.

Says: audio: NaN or infinity after transform in blob140
"""

from benchmark.check.synthetic import Blobs


class DataZeroDivision(Blobs):
    def load(self):
        samples = super().load()
        samples.inputs["audio"][140] = 0.0
        return samples

    def transform(self, inputs, draws):  # here
        audio = inputs["audio"]
        return {**inputs, "audio": audio / audio.abs().amax(1, keepdim=True)}
