"""ResNet (He et al., CVPR 2016), torchvision's, for any number of input channels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from benchmark.encoders.config import EncoderConfig
from benchmark.encoders.frames import FRAMES, FrameEncoder
from benchmark.encoders.weights import find_torchvision_weights, load_weights
from benchmark.model import draw_weights

Depth = Literal[18, 34, 50]


class ResNet(EncoderConfig):
    """A ResNet without its classifier: 512 features, or 2048 at depth 50."""

    reads = FRAMES
    kind: Literal["resnet"] = "resnet"
    depth: Depth = 18
    """Layers with weights. 18 is what the audio-visual literature trains (Peng et al., CVPR 2022)."""
    weights: str = ""
    """Empty: random weights (`draw_weights`). Else a name of torchvision's such as IMAGENET1K_V1, or a file of its
    format. Where the number of input channels is not the file's, `adapt_stem` makes the first convolution."""

    def make(self, shape: tuple[int, ...]) -> ResNetEncoder:
        encoder = ResNetEncoder(self.depth, shape[0])
        for path in self.weight_files():
            load_weights(encoder.net, path, self.where, stem="conv1.weight", unused="fc.")
        return encoder

    def weight_files(self) -> list[Path]:
        if not self.weights:
            return []
        return [find_torchvision_weights(f"resnet{self.depth}", self.weights, self.where)]


class ResNetEncoder(FrameEncoder):
    """Features of images or frames, pooled over space."""

    def __init__(self, depth: int, channels: int) -> None:
        from torchvision.models import get_model

        super().__init__()
        self.net = get_model(f"resnet{depth}", weights=None)
        self.dim = self.net.fc.in_features
        self.net.fc = nn.Identity()
        self.net.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        draw_weights(self.net)

    def encode_images(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images)
        return features
