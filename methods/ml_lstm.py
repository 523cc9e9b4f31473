"""ML-LSTM: a multi-layer LSTM reads the modalities one after the other. Reconstructed.

    h_m = relu(P_m u_m),    H = LSTM layers over (h_1, .., h_M),    z = W H_M + b,    loss = CE(z, y)

The sequence is the modalities in the task's order, on which the result depends. z does not decompose, so there are no
logits of one modality. Any number of modalities; one forward and one backward pass.

Paper: By Nie, Yan, Song and Wang. Only the abstract was available: an LSTM over the utterances of a video. Tables of
later papers list it on single clips, without saying how it was ported.

Released code: No code.

Ours: Two layers over the sequence of modalities. The gates are open at the start: half shut, as torch draws them, two
layers pass so little on that stochastic gradient descent stays near chance for many epochs. What other tables ran
cannot be known.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import Head, MultimodalNet, Outputs


def open_gates(lstm: nn.LSTM) -> None:
    """Draw weights anew, input ones Xavier-normal and recurrent ones orthogonal, and set the bias of each gate to 1."""
    for name, parameter in lstm.named_parameters():
        parts = parameter.detach().chunk(4)  # input gate, forget gate, candidate, output gate
        for position, part in enumerate(parts):
            if name.startswith("weight_ih"):
                nn.init.xavier_normal_(part)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(part)
            else:
                part.fill_(float(name.startswith("bias_ih") and position != 2))


class LstmHead(Head):
    """One linear layer on the last state of an LSTM over the modalities."""

    def __init__(self, dims: Mapping[str, int], width: int, num_layers: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        self.lstm = nn.LSTM(width, width, num_layers, batch_first=True)
        open_gates(self.lstm)
        self.output = nn.Linear(width, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        sequence = torch.stack([self.project[m](u).relu() for m, u in features.items()], 1)  # (B, M, H)
        states, _ = self.lstm(sequence)
        return Outputs(features, {}, self.output(states[:, -1]))


class MLLSTM(Method):
    reference = Reference(
        "Multi-modal feature fusion based on multi-layers LSTM for video emotion recognition",
        "Multimedia Tools and Applications",
        2021,
    )
    ledger = Ledger(
        code="no code",
        paper="reconstructed",
        paper_test="test_logits_follow_an_lstm_written_out",
    )

    class Config(Method.Config):
        width: int = Field(default=512, ge=1)
        """Units of the projections and of each layer's state (ours: the width of the encoders of the literature)."""
        num_layers: int = Field(default=2, ge=1)
        """Layers of the LSTM (ours; the title says several)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        width, num_layers = self.config.width, self.config.num_layers
        return MultimodalNet(task.build_encoders(), lambda dims: LstmHead(dims, width, num_layers, task.num_classes))
