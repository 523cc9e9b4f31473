"""Every kind of encoder, for settings that name one: `{"kind": "resnet", "depth": 50}`, or "resnet50" for short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from benchmark.encoders.bert import Bert
from benchmark.encoders.clip import ClipImage, ClipText
from benchmark.encoders.config import EncoderConfig
from benchmark.encoders.i3d import I3d
from benchmark.encoders.resnet import Depth, ResNet
from benchmark.encoders.small import ConvNet, FeatureTransformer, Mlp
from benchmark.encoders.words import WordConv, WordMean, WordTransformer
from benchmark.errors import nearest

_Known = (
    ResNet
    | I3d
    | Bert
    | ClipImage
    | ClipText
    | ConvNet
    | Mlp
    | FeatureTransformer
    | WordMean
    | WordConv
    | WordTransformer
)
KINDS: Mapping[str, type[EncoderConfig]] = {config.model_fields["kind"].default: config for config in get_args(_Known)}
"""Configuration classes by kind."""
SHORT: Mapping[str, Mapping[str, Any]] = {
    **{kind: {"kind": kind} for kind in KINDS},
    **{f"resnet{depth}": {"kind": "resnet", "depth": depth} for depth in get_args(Depth)},
}
"""The configurations that the short names mean."""


def _expand(value: Any) -> Any:
    """Return the configuration that a short name means; a mapping unchanged, once its keys are known."""
    if isinstance(value, EncoderConfig):
        return value
    if isinstance(value, str):
        if value not in SHORT:
            raise ValueError(f"the name of an encoder ({nearest(value, SHORT)})")
        return dict(SHORT[value])
    if not isinstance(value, Mapping):
        raise ValueError('the name of an encoder, or a mapping such as {"kind": "resnet", "depth": 50}')
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"a kind of encoder ({nearest(str(kind), KINDS)})")
    known = KINDS[kind].model_fields
    if unknown := [key for key in value if key not in known]:
        raise ValueError(f"settings of {kind} only, not {unknown[0]!r} ({nearest(unknown[0], known)})")
    return value


AnyEncoder = Annotated[Annotated[_Known, Field(discriminator="kind")], BeforeValidator(_expand)]
"""The type of a setting that holds any encoder's configuration."""
