"""ML-LSTM: against an LSTM written out gate by gate; the order of modalities counts, that of samples does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.ml_lstm import LstmHead, open_gates

DIMS = {"audio": 3, "video": 3, "text": 3}


def features_of(seed: int, modalities=tuple(DIMS)) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {m: torch.randn(5, 3, generator=draw, dtype=torch.float64) for m in modalities}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def written_out(head: LstmHead, features: dict[str, torch.Tensor]) -> np.ndarray:
    value = {name: p.detach().numpy() for name, p in head.named_parameters()}
    sequence = []
    for m, u in features.items():
        projected = u.numpy() @ value[f"project.{m}.weight"].T + value[f"project.{m}.bias"]
        sequence.append(np.maximum(projected, 0))
    for layer in range(head.lstm.num_layers):
        hidden = cell = np.zeros_like(sequence[0])
        states = []
        for x in sequence:
            gates = x @ value[f"lstm.weight_ih_l{layer}"].T + value[f"lstm.bias_ih_l{layer}"]
            gates = gates + hidden @ value[f"lstm.weight_hh_l{layer}"].T + value[f"lstm.bias_hh_l{layer}"]
            enter, forget, new, leave = np.split(gates, 4, 1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(leave) * np.tanh(cell)
            states.append(hidden)
        sequence = states
    return sequence[-1] @ value["output.weight"].T + value["output.bias"]


@pytest.mark.parametrize("seed", range(20))
def test_logits_follow_an_lstm_written_out(seed):
    torch.manual_seed(seed)
    head, features = LstmHead(DIMS, 4, 2, 6).double(), features_of(seed)
    np.testing.assert_allclose(head(features).fused.detach().numpy(), written_out(head, features), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_modalities_gives_one_row_of_logits_a_sample(count):
    modalities = tuple(DIMS)[:count]
    out = LstmHead(dict.fromkeys(modalities, 3), 4, 2, 6).double()(features_of(0, modalities))
    assert out.fused.shape == (5, 6)
    assert not out.unimodal


def test_the_order_of_samples_does_not_count_and_that_of_modalities_does():
    torch.manual_seed(0)
    head, features, order = LstmHead(DIMS, 4, 2, 6).double(), features_of(0), torch.tensor([3, 1, 4, 0, 2])
    fused = head(features).fused
    torch.testing.assert_close(head({m: u[order] for m, u in features.items()}).fused, fused[order])
    assert not torch.allclose(head(dict(reversed(features.items()))).fused, fused)


def test_every_modality_gets_a_gradient_at_the_start():
    torch.manual_seed(0)
    features = {m: u.requires_grad_() for m, u in features_of(0).items()}
    LstmHead(DIMS, 16, 2, 6).double()(features).fused.square().sum().backward()
    for modality, u in features.items():
        assert u.grad.abs().sum() > 0, modality


def test_gates_start_open_and_candidates_unbiased():
    torch.manual_seed(0)
    lstm = LstmHead(DIMS, 4, 2, 6).lstm
    for layer in range(2):
        bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
        assert bias.tolist() == [1.0] * 8 + [0.0] * 4 + [1.0] * 4
        for recurrent in getattr(lstm, f"weight_hh_l{layer}").chunk(4):
            torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(4), atol=1e-5, rtol=0)


def test_each_gate_begins_by_itself():
    lstm = torch.nn.LSTM(8, 8)
    open_gates(lstm)
    for gate in lstm.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=0, atol=1e-5)
    assert [set(gate.tolist()) for gate in lstm.bias_ih_l0.detach().chunk(4)] == [{1.0}, {1.0}, {0.0}, {1.0}]
    assert set(lstm.bias_hh_l0.tolist()) == {0.0}
