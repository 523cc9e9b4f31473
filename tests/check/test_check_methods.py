"""The contract tests of `bench check` find every way of breaking the contract that we could think of."""

from __future__ import annotations

import textwrap

import pytest

from benchmark.check import check_plugin
from benchmark.check.epoch_end import untrained

EXAMPLE = '''
"""Focal: down-weight what is already learnt."""

from pydantic import Field
from torch.nn import functional as F

from benchmark.method import Method, OffSwitch, Reference
from benchmark.model import concat_net


class Focal(Method):
    reference = Reference("Focal loss for dense object detection", "ICCV", 2017)
    off_switches = (OffSwitch({"gamma": 0.0}, "concat"),)

    class Config(Method.Config):
        gamma: float = Field(default=1.0, ge=0)
        """Focusing exponent, without unit (section 3.2 of the paper)."""

    config: Config

    def build_net(self, task):
        return concat_net(task)

    def loss(self, out, batch):
        if not self.config.gamma:
            return super().loss(out, batch)
        losses = F.cross_entropy(out.fused, batch.labels, reduction="none")
        return ((1 - (-losses).exp()) ** self.config.gamma * losses).mean()
'''

METHOD = """
import gc, sys, time
from typing import Any
import torch
from torch import nn
from torch.nn import functional as F
from benchmark.method import Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, SharedOutputHead, concat_net

SEEN = []

class Broken(Method):
    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)
"""

PAIR = """
    modalities = (2, 2)
    off_switches = (OffSwitch({}, "concat"),)
"""

BROKEN_METHODS = {
    "has a reference": """
        reference = Reference("")
    """,
    "settings are documented": """
        class Config(Method.Config):
            alpha: float = 0.1
    """,
    "config round-trips": """
        class Config(Method.Config):
            steps: Any = (1, 2)
            '''Epochs of the steps.'''
    """,
    "predicts finite logits of the right shape, twice the same": """
        def predict(self, inputs):
            return {head: logits[:, :2] for head, logits in super().predict(inputs).items()}
    """,
    "predicts finite logits of the right shape, twice the same #random": """
        def predict(self, inputs):
            return {head: logits + torch.randn_like(logits) for head, logits in super().predict(inputs).items()}
    """,
    "predicts finite logits of the right shape, twice the same #infinite": """
        def predict(self, inputs):
            return {head: logits / 0.0 for head, logits in super().predict(inputs).items()}
    """,
    "predicts finite logits of the right shape, twice the same #no fused": """
        def predict(self, inputs):
            return self.net(inputs).unimodal
    """,
    "gradients reach every encoder": """
        def loss(self, out, batch):
            features = {m: u.detach() if m == "audio" else u for m, u in out.features.items()}
            return F.cross_entropy(self.net.head(features).fused, batch.labels)
    """,
    "owns every trainable parameter, at the scheduled rate": """
        def attach(self, run):
            self.run = run
            self.optimizer = run.optimizer(self.net.encoders.parameters())
    """,
    "owns every trainable parameter, at the scheduled rate #rate": """
        def step(self, batch):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.01
            return super().step(batch)
    """,
    "same seed, same bits": """
        def loss(self, out, batch):
            SEEN.append(1)
            return super().loss(out, batch) * (1 + len(SEEN) / 100)
    """,
    "same seed, same bits #clock": """
        def loss(self, out, batch):
            return super().loss(out, batch) * (1 + time.perf_counter_ns() % 1000 / 1000)
    """,
    "interrupted and resumed equals uninterrupted": """
        steps = 0

        def loss(self, out, batch):
            self.steps += 1
            return super().loss(out, batch) * (1 + self.steps / 100)
    """,
    "interrupted and resumed equals uninterrupted #momentum": """
        def attach(self, run):
            self.run = run
            self.optimizer = run.probe_optimizer(self.net.parameters())
            run.optimizer(self.net.parameters())
    """,
    "loads for evaluation without a run": """
        def attach(self, run):
            self.net.extra = nn.Linear(1, 1)
            super().attach(run)
    """,
    "sees the batches of the plain loop": """
        def attach(self, run):
            super().attach(run)
            serve = run.train_batches
            run.train_batches = lambda epoch: reversed(list(serve(epoch)))
    """,
    "beats chance on separable data": """
        def loss(self, out, batch):
            return super().loss(out, batch) * 0.0
    """,
    "evaluation changes no training state": """
        def __init__(self, config, task):
            super().__init__(config, task)
            self.register_buffer("looks", torch.zeros(()))

        def predict(self, inputs):
            self.looks += 1
            return super().predict(inputs)

        def loss(self, out, batch):
            return super().loss(out, batch) * (1 + self.looks / 100)
    """,
    "predicts finite logits of the right shape, twice the same #normalisation": """
        def predict(self, inputs):
            self.train()
            out = super().predict(inputs)
            self.eval()
            return out
    """,
    "scores what was trained": """
        def end_epoch(self, epoch):
            nn.init.xavier_normal_(self.net.head.slices["audio"])
    """,
    "scores what was trained #grown": """
        extra = 0

        def build_net(self, task):
            return MultimodalNet(task.build_encoders(), lambda dims: SharedOutputHead(dims, 4, task.num_classes))

        def end_epoch(self, epoch):
            self.extra += 1
            self.train_instead(self.net.head.bank("audio").grow())

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, extra):
            while self.extra < extra:
                self.end_epoch(0)
    """,
    "scores what was trained #frozen": """
        def __init__(self, config, task):
            super().__init__(config, task)
            self.part = nn.Module()
            self.part.register_buffer("frozen", torch.empty(0, 3))

        def end_epoch(self, epoch):
            self.part.frozen = torch.cat([self.part.frozen, torch.randn(1, 3)])

        def set_extra_state(self, rows):
            self.part.frozen = torch.empty(rows, 3)

        def get_extra_state(self):
            return len(self.part.frozen)

        def predict(self, inputs):
            return {head: z + self.part.frozen.sum(0) for head, z in super().predict(inputs).items()}
    """,
    "cannot see the test split": """
        def attach(self, run):
            super().attach(run)
            self.stolen = [item for item in gc.get_objects() if type(item).__name__ == "Feeds"]
    """,
    "off-switch {'alpha': 0.0} equals concat": """
        off_switches = (OffSwitch({"alpha": 0.0}, "concat"),)

        class Config(Method.Config):
            alpha: float = 1.0
            '''Weight.'''

        def loss(self, out, batch):
            return super().loss(out, batch) * (1.01 + self.config.alpha)
    """,
    "supports some task": """
        class Config(Method.Config):
            def unsupported(self, task):
                return "never"
    """,
    "imports alone": """
        assert "benchmark.check" in sys.modules
    """,
}


SAYS = {"scores what was trained": "no training step"}
"""What a failure says, where it could have another cause."""

CHANGING_METHODS = {
    "goes back": """
        def start_epoch(self, epoch):
            self.kept = {name: x.clone() for name, x in self.net.state_dict().items()}

        def end_epoch(self, epoch):
            if epoch:
                self.net.load_state_dict(self.kept)
    """,
    "fits with dropout": """
        def end_epoch(self, epoch):
            for batch in self.run.train_batches(epoch, salt=1, count=False):
                out = self.net(batch.inputs)
                self.optimizer.zero_grad()
                F.cross_entropy(out.fused, batch.labels).backward()
                self.optimizer.step()
    """,
    "remembers": """
        def __init__(self, config, task):
            super().__init__(config, task)
            self.part = nn.Module()
            self.part.register_buffer("memory", torch.zeros(0, task.num_classes))

        def end_epoch(self, epoch):
            self.net.eval()
            with torch.no_grad():
                logits = [self.net(batch.inputs).fused for batch in self.run.train_in_order()]
            self.part.memory = torch.cat(logits)

        def get_extra_state(self):
            return len(self.part.memory)

        def set_extra_state(self, rows):
            self.part.memory = torch.zeros(rows, self.task.num_classes)

        def predict(self, inputs):
            return {head: z - self.part.memory.sum(0) / 1e4 for head, z in super().predict(inputs).items()}
    """,
}
"""Methods whose `end_epoch` may change what they predict: by nothing that is as drawn."""


@pytest.mark.parametrize("case", CHANGING_METHODS)
def test_a_method_may_go_back_fit_and_remember_when_an_epoch_ends(plugin, first_failure, monkeypatch, case):
    monkeypatch.setattr("benchmark.check.methods._imports_alone", lambda plugin: None)
    seen = []
    monkeypatch.setattr(
        "benchmark.check.methods.untrained", lambda trainers: seen.append(untrained(trainers)) or seen[-1]
    )
    body = textwrap.indent(textwrap.dedent(CHANGING_METHODS[case]), "    ")
    assert not first_failure(plugin("changing", METHOD + body), "scores what was trained")
    assert seen, "the test needs predictions that change"
    assert not any(seen)


@pytest.mark.parametrize("case", BROKEN_METHODS)
def test_a_broken_method_fails_the_contract_test_of_what_it_breaks(plugin, first_failure, monkeypatch, case):
    if case != "imports alone":
        monkeypatch.setattr(
            "benchmark.check.methods._imports_alone", lambda plugin: None
        )  # a process for each takes a minute
    body = textwrap.indent(textwrap.dedent(BROKEN_METHODS[case]), "    ")
    name = case.partition(" #")[0]
    said = first_failure(plugin("broken", METHOD + body), name)
    assert said
    assert SAYS.get(name, "") in said


def test_a_complete_method_in_under_40_lines_passes_every_contract_test(plugin):
    assert len(EXAMPLE.strip().splitlines()) < 40
    results = list(check_plugin(plugin("focal", EXAMPLE)))
    assert not [result for result in results if result.verdict != "ok"]
    assert sum("off-switch" in result.name for result in results) == 2


@pytest.mark.full
def test_a_method_for_two_modalities_passes_with_a_reason_for_three(plugin):
    results = list(check_plugin(plugin("pair", METHOD + PAIR)))
    assert not [result for result in results if result.failed]
    assert [result.detail for result in results if result.verdict == "n/a"] == ["defined for two modalities"]


def test_no_contract_test_runs_on_a_task_that_the_method_does_not_support(plugin):
    names = [result.name for result in check_plugin(plugin("pair", METHOD + PAIR))]
    assert [name for name in names if name.startswith("3 modalities")] == ["3 modalities"]
    assert any("off-switch" in name for name in names)


@pytest.mark.parametrize(
    ("attribute", "test"),
    [("presets = {'blobs': {'alhpa': 1.0}}", "presets are"), ("ablations = ({'alpha': 'much'},)", "ablations are")],
)
def test_presets_and_ablations_must_be_settings_of_the_method(plugin, first_failure, monkeypatch, attribute, test):
    monkeypatch.setattr("benchmark.check.methods._imports_alone", lambda plugin: None)
    body = f"    {attribute}\n\n    class Config(Method.Config):\n        alpha: float = 1.0\n        '''Weight.'''\n"
    assert first_failure(plugin("broken", METHOD + body), f"{test} settings that it has")
