"""BERT (Devlin et al., NAACL 2019) and its relatives, from any checkpoint of the transformers library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from benchmark.encoders.checkpoints import CheckpointName, TextCheckpointConfig
from benchmark.model import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class Bert(TextCheckpointConfig):
    """A transformer over token ids: as many features as its hidden states have."""

    kind: Literal["bert"] = "bert"
    checkpoint: CheckpointName = "bert-base-uncased"
    """The one of the image-text literature (TomBERT, IGM). A folder, by its path or its name in the weights folder, or
    a name on the hub."""
    pooling: Literal["cls", "mean"] = "cls"
    """The last hidden state of the first token, as image-text code takes it (IGM, IJCAI 2025), or the mean over all
    tokens that are not padding."""

    def fits(self, config: PreTrainedConfig) -> bool:
        return hasattr(config, "hidden_size") and hasattr(config, "max_position_embeddings")

    def make(self, shape: tuple[int, ...]) -> BertEncoder:
        from transformers import AutoModel

        model = self.load(AutoModel, AutoModel.from_config)
        tokenizer = self.tokenizer()
        self.check_length(shape, min(tokenizer.model_max_length, model.config.max_position_embeddings))
        return BertEncoder(model, tokenizer.pad_token_id, self.pooling)


class BertEncoder(Encoder):
    """Features of token ids (B, L). Padding is attended to by no token."""

    def __init__(self, model: PreTrainedModel, padding: int, pooling: Literal["cls", "mean"]) -> None:
        """Wrap a transformer.

        Args:
            model: a transformer that returns `last_hidden_state`; its pooler, if any, is dropped.
            padding: id of the padding token.
            pooling: how the features come from the hidden states.
        """
        super().__init__()
        if hasattr(model, "pooler"):
            model.register_module("pooler", None)
        self.model = model
        self.padding = padding
        self.pooling = pooling
        self.dim = model.config.hidden_size

    def forward(self, ids: Tensor) -> Tensor:
        real = ids != self.padding  # (B, L)
        real[:, 0] = True  # never nothing, so that a row of padding alone gives numbers
        states: Tensor = self.model(input_ids=ids, attention_mask=real.long()).last_hidden_state  # (B, L, D)
        if self.pooling == "cls":
            return states[:, 0]
        weights = real.unsqueeze(2).to(states)
        return (states * weights).sum(1) / weights.sum(1)
