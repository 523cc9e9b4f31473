"""Encoders out of the transformers library: their checkpoints, from a folder or from the hub. Safetensors only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from benchmark.encoders.config import EncoderConfig, TextEncoderConfig
from benchmark.encoders.weights import listed, locate, weights_folder
from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Patterns = tuple[str, ...]
"""Patterns of file names."""
CONFIG: Patterns = ("config.json",)
WEIGHTS: Patterns = ("model.safetensors", "model-*.safetensors")
SHARDS: Patterns = ("model.safetensors.index.json",)
TOKENIZER: Patterns = ("tokenizer.json", "vocab.txt", "vocab.json")
SPELLING: Patterns = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
CheckpointName = Annotated[str, Field(min_length=1)]


class CheckpointConfig(EncoderConfig):
    """An encoder of the transformers library."""

    beside: ClassVar[Patterns] = SHARDS
    """Files that are read too where they are there."""
    checkpoint: CheckpointName
    """A folder, by its path or its name in the weights folder, or a name on the hub, which is downloaded once. Of
    weights only safetensors are read."""
    pretrained: bool = True
    """False: the checkpoint's architecture (and tokens) with new random weights."""

    @abstractmethod
    def fits(self, config: PreTrainedConfig) -> bool:
        """Return whether this encoder can be made of a checkpoint with that configuration."""

    @property
    def where(self) -> str:
        return f"{super().where}, checkpoint {self.checkpoint}"

    def wanted(self) -> list[Patterns]:
        """Return the files that the checkpoint must have: at least one of each group."""
        return [CONFIG, WEIGHTS] if self.pretrained else [CONFIG]

    def folder(self) -> Path:
        """Return the folder of the checkpoint's files.

        Raises:
            UserError: when it is neither on disk nor on the hub, or is incomplete.
        """
        wanted = self.wanted()
        folder = locate(self.checkpoint) or download(self.checkpoint, [*sum(wanted, ()), *self.beside], wanted)
        names = ", ".join(" or ".join(patterns) for patterns in wanted)
        advice = f"Give the path of a folder with {names}, or make it {weights_folder() / self.checkpoint}."
        if folder is None:
            got = "no such folder, and nothing from the hub or its cache"
            raise UserError(Problem(self.where, "a checkpoint in a folder or on the hub", got, advice))
        missing = [" or ".join(patterns) for patterns in wanted if not matching(folder, patterns)]
        if missing:
            pickled = "; pickled weights (*.bin) are not read" if matching(folder, ("*.bin",)) else ""
            raise UserError(Problem(self.where, f"{', '.join(missing)} in {folder}", f"no such file{pickled}", advice))
        return folder

    def weight_files(self) -> list[Path]:
        return matching(self.folder(), [*sum(self.wanted(), ()), *self.beside])

    def load(self, kind: Any, draw: Callable[[Any], PreTrainedModel]) -> PreTrainedModel:
        """Return the model in float32.

        Args:
            kind: the class of transformers' that reads pretrained weights.
            draw: makes it from the checkpoint's configuration, with weights drawn by its authors' rule.

        Raises:
            UserError: when files are missing, damaged or of another architecture.
        """
        from transformers import AutoConfig

        folder = self.folder()
        with self.reading(folder):
            config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        if not self.fits(config):
            raise UserError(Problem(self.where, f"a checkpoint for {self.kind}", f"one of type {config.model_type}"))
        if not self.pretrained:
            with self.reading(folder):
                drawn: PreTrainedModel = draw(config).float()
            return drawn
        options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # reported below, with everything else
        with self.reading(folder):
            model, found = kind.from_pretrained(folder, **options, **told)
        self.compare(found)
        loaded: PreTrainedModel = model
        return loaded

    def compare(self, found: Mapping[str, Any]) -> None:
        """Raise `UserError` with the weights that are missing from a checkpoint or have other shapes.

        More weights than the encoder has are as they should be: of heads, of CLIP's other tower.
        """
        problems = []
        if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
            problems.append(Problem(self.where, f"weights named {listed(missing)}", "none of these"))
        if differing := sorted(found["mismatched_keys"]):
            wanted = [f"{name} {tuple(shape)}" for name, _, shape in differing]
            got = [f"{name} {tuple(shape)}" for name, shape, _ in differing]
            problems.append(Problem(self.where, f"the shapes {listed(wanted)}", listed(got)))
        if problems:
            raise UserError(*problems)

    @contextmanager
    def reading(self, folder: Path) -> Iterator[None]:
        """Silence transformers in the block, and turn what it raises about a checkpoint into a `UserError`."""
        from transformers.utils import logging

        level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes lead to
            got = " ".join(str(error).split()) or type(error).__name__
            raise UserError(Problem(self.where, f"a whole checkpoint in {folder}", got)) from None
        finally:
            logging.set_verbosity(level)
            if has_bars:
                logging.enable_progress_bar()


class TextCheckpointConfig(CheckpointConfig, TextEncoderConfig):
    """An encoder of text of the transformers library, with the tokens of its checkpoint."""

    beside = (*SHARDS, *SPELLING)

    def wanted(self) -> list[Patterns]:
        return [*super().wanted(), TOKENIZER]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the checkpoint's tokenizer."""
        from transformers import AutoTokenizer

        folder = self.folder()
        with self.reading(folder):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.pad_token_id is None:
            raise UserError(Problem(self.where, "a tokenizer with a padding token", "one without"))
        return tokenizer

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        tokenizer = self.tokenizer()
        special = tokenizer.num_special_tokens_to_add()
        if length <= special:
            raise UserError(Problem(self.where, f"a length above its {special} special tokens", str(length)))
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length)
        return torch.tensor(tokens["input_ids"], dtype=torch.int64).reshape(-1, length)

    def check_length(self, shape: tuple[int, ...], limit: int) -> None:
        """Raise `UserError` when samples (L,) are longer than the model's `limit` of positions."""
        if shape[0] > limit:
            raise UserError(Problem(self.where, f"at most {limit} tokens", f"{shape[0]} tokens a sample"))


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a folder whose names match one of the patterns, sorted."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def download(name: str, patterns: list[str], wanted: Sequence[Patterns]) -> Path | None:
    """Return the folder of a named checkpoint in the hub's cache, downloaded first if necessary.

    The network is asked only where the cache lacks a wanted file. None when neither has the checkpoint.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    for offline in (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=offline))
        except (OSError, HFValidationError):
            continue
        if not offline or all(matching(folder, each) for each in wanted):
            return folder
    return None
