"""Protocols: how every method of a comparison is trained, selected and measured. Data, not code.

A protocol is one YAML file in `benchmark/protocols/`, or a path to one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field

from benchmark.bounded import parse_yaml, read_bytes
from benchmark.errors import Problem, UserError, nearest
from benchmark.rules import BEST_VALID, known_rule
from benchmark.settings import Settings, parse_settings

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Sgd(Settings):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(gt=0)
    """Learning rate at the start."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)

    def build(self, params: Iterable[nn.Parameter], **overrides: Any) -> Optimizer:
        from torch.optim import SGD

        return SGD(params, **{**self.model_dump(exclude={"kind"}), **overrides})


class Adam(Settings):
    """Adam, or AdamW where `decoupled`."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(gt=0)
    """Learning rate at the start."""
    weight_decay: float = Field(default=0.0, ge=0)
    decoupled: bool = False
    """Decay the weights apart from the gradient, as AdamW does."""

    def build(self, params: Iterable[nn.Parameter], **overrides: Any) -> Optimizer:
        from torch import optim

        kind = optim.AdamW if self.decoupled else optim.Adam
        return kind(params, **{**self.model_dump(exclude={"kind", "decoupled"}), **overrides})


class Constant(Settings):
    """The learning rate stays."""

    kind: Literal["constant"] = "constant"

    def factor(self, epoch: int, epochs: int) -> float:
        return 1.0


class Steps(Settings):
    """The learning rate falls by `gamma` every `every` epochs."""

    kind: Literal["steps"] = "steps"
    every: int = Field(ge=1)
    """Epochs between drops."""
    gamma: float = Field(default=0.1, gt=0)
    early: int = Field(default=0, ge=0)
    """Epochs by which each drop comes early: 1 where code steps the scheduler before training (AUG)."""

    def factor(self, epoch: int, epochs: int) -> float:
        return float(self.gamma ** ((epoch + self.early) // self.every))


class Cosine(Settings):
    """The learning rate falls along half a cosine to nearly zero."""

    kind: Literal["cosine"] = "cosine"

    def factor(self, epoch: int, epochs: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


class Recipe(Settings):
    """Everything about training and selection that is the same for every method of a comparison."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    """Samples in one training batch."""
    eval_batch_size: int = Field(default=256, ge=1)
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")]
    schedule: Annotated[Constant | Steps | Cosine, Field(discriminator="kind")] = Constant()
    valid_share: float = Field(default=0.15, ge=0, lt=1)
    """Part of train that validation takes where none is published. 0: all of train trains, also what a published
    division takes from train to validate on; rules that look at validation are then not defined (n/a)."""
    init: Literal["default", "released"] = Field(default="default", exclude_if=lambda init: init == "default")
    """How random weights start. `default`: heads as torch draws them, encoders as their kind does. `released`: all of
    them as the field's audio-visual code does, Xavier-normal linear layers without bias and Kaiming-normal
    convolutions; about twice to three times larger in heads. Pretrained weights stay as they are."""
    drop_last: bool = False
    """Drop the last, smaller training batch. Validation and test never drop a sample."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """fp32 is near a CPU's numbers on any device; tf32 lets a GPU round what it multiplies, as torch does by default
    in convolutions; bf16 runs the encoders under autocast, channels last."""
    selection: Annotated[str, AfterValidator(known_rule)] = BEST_VALID.name
    """The rule of the main table, one of `benchmark.rules.RULES`. All of them are computed in every run."""


class Protocol(Settings):
    """A named recipe, with what differs from data set to data set."""

    name: str
    about: str
    """Whose protocol it is, and what of it is the same."""
    source: str = ""
    """The code that it follows: repository @ commit."""
    differs: dict[str, str] = {}
    """What is not as in the source, in words, by `DATA SET.FACT`; printed under tables."""
    recipe: dict[str, Any]
    datasets: dict[str, dict[str, Any]] = {}
    """Changes of the recipe for single data sets."""
    data: dict[str, dict[str, Any]] = {}
    """Settings of single data sets: seconds of audio, number of frames, encoders, the literature's quirks."""
    use_dataset_recipe: bool = False
    """Start from what the data set plugin itself recommends (`Dataset.recipe`)."""

    def resolve(self, dataset: str, recommended: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
        """Return the recipe for one data set; later ones win: protocol, data set, command line."""
        recipe = dict(self.recipe)
        for change in (recommended if self.use_dataset_recipe else {}, self.datasets.get(dataset, {}), overrides):
            recipe = _merge(recipe, change)
        return parse_settings(Recipe, recipe, f"protocol {self.name}")

    def replaced(self, dataset: str, recommended: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Return what the protocol itself says where a recipe says something else: {"epochs": 25, "optimizer.lr": .01}.

        A key that only the recipe has, such as one of another optimizer, has None.
        """
        try:
            own = _flat(self.resolve(dataset, recommended, {}).model_dump(mode="json"))
        except UserError:  # a protocol that leaves something to the command line
            return {}
        used = _flat(recipe.model_dump(mode="json"))
        return {key: own.get(key) for key in sorted(own.keys() | used.keys()) if own.get(key) != used.get(key)}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values under keys with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        found |= {f"{key}.{name}": one for name, one in _flat(value).items()} if nested else {key: value}
    return found


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; a change of `kind` replaces its whole mapping."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        same_kind = (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        )
        merged[key] = _merge(old, value) if same_kind else value  # type: ignore[arg-type]
    return merged


def protocol_names() -> list[str]:
    """Return the names of the protocols that come with the package."""
    folder = resources.files("benchmark") / "protocols"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_protocol(name: str) -> Protocol:
    """Read a protocol by name or from the path of a YAML file.

    Raises:
        UserError: when there is no such protocol or its file is malformed.
    """
    if name.endswith((".yaml", ".yml")):
        text = read_text(Path(name), "--protocol")
    elif name in protocol_names():
        text = (resources.files("benchmark") / "protocols" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise UserError(Problem("--protocol", "a protocol", repr(name), nearest(name, protocol_names())))
    return parse_settings(Protocol, read_yaml(text, f"protocol {name}"), f"protocol {name}")


MAX_FILE = 2**20
"""Most bytes of an experiment or a protocol."""


def read_text(path: Path, where: str) -> str:
    """Return the text of a file that the user named.

    Raises:
        UserError: when it cannot be read or is not text.
    """
    try:
        return read_bytes(path, MAX_FILE).decode("utf-8")
    except (OSError, ValueError) as error:
        words = "not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        got = f"{path} ({words})"
        raise UserError(Problem(where, "a readable YAML file", got)) from None


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse a YAML mapping, with the line of a syntax error or a repeated key in the message."""
    try:
        content = parse_yaml(text, _StrictLoader)
    except ValueError as error:
        raise UserError(Problem(where, "well-formed YAML", str(error))) from None
    if not isinstance(content, dict):
        raise UserError(Problem(where, "a YAML mapping (key: value lines)", type(content).__name__))
    return content


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys, which YAML itself lets pass in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# as YAML 1.2 and people write them; YAML 1.1, which this loader reads, wants a point and a sign: 1.0e-3
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, [*"-+0123456789"])
