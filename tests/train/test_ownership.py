"""Whatever of a method requires a gradient is saved, moved and trained, wherever the method keeps it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmark.method import Method, Reference
from benchmark.model import concat_net
from benchmark.train.ownership import UnownedParameters, UnsavedState


class Keeper(Method):
    """Concat that keeps something more, as a test says."""

    reference = Reference("test")

    def build_net(self, task):
        self.kept = self.keep()
        return concat_net(task)


def method_that_keeps(make):
    return type("Keeper", (Keeper,), {"keep": staticmethod(make)})


def layer():
    return nn.Linear(3, 3)


def parameter():
    return nn.Parameter(torch.zeros(3))


def closure():
    hidden = layer()
    return lambda x: 2 * hidden(x)


STRAYS = {
    "modules in a list": (lambda: [layer(), layer()], r"kept\[0\].weight, .*kept\[1\].bias.*use nn.ModuleList"),
    "modules in a dict": (lambda: {"audio": layer()}, r"kept\['audio'\].weight.*use nn.ModuleDict"),
    "parameters in a list": (lambda: [parameter()], r"kept\[0\]: .*use nn.ParameterList"),
    "parameters in a dict": (lambda: {"audio": parameter()}, r"kept\['audio'\]: .*use nn.ParameterDict"),
    "modules in a tuple": (lambda: (layer(),), r"plain tuple, .*kept\[0\].weight.*nn.ModuleList"),
    "a tensor": (lambda: torch.zeros(3, requires_grad=True), "kept is a plain tensor.*make it an nn.Parameter"),
    "lists in lists": (lambda: [[layer()]], r"kept\[0\]\[0\].weight"),
    "an object": (lambda: SimpleNamespace(layer=layer()), "kept.layer.weight"),
    "a closure": (closure, "kept: hidden.weight"),
    "a partial": (lambda: partial(torch.add, parameter()), "does not see kept"),
}


@pytest.mark.parametrize("case", STRAYS)
def test_what_torch_does_not_see_is_named_with_advice(trainer, case):
    make, message = STRAYS[case]
    with pytest.raises(UnownedParameters, match=message) as refused:
        trainer(method_that_keeps(make)).run_epoch()
    assert refused.value.attribute == "kept"


def circle():
    one = []
    one.append(one)
    return one


SOUND = {
    "frozen modules in a list": lambda: [layer().requires_grad_(False)],
    "tensors without gradients": lambda: {"seen": [torch.zeros(3)]},
    "a module": lambda: nn.ModuleList([]),
    "what contains itself": circle,
    "anything else": lambda: [1, "two", None, print, torch, int],
}


@pytest.mark.parametrize("case", SOUND)
def test_what_needs_no_training_may_be_kept_anywhere(trainer, case):
    trainer(method_that_keeps(SOUND[case])).run_epoch()


def test_registered_modules_may_also_be_in_a_list(trainer):
    class Both(Method):
        reference = Reference("test")

        def build_net(self, task):
            net = concat_net(task)
            self.order = list(net.encoders.values())
            return net

    trainer(Both).run_epoch()


def test_a_list_that_an_optimizer_trains_is_still_not_saved(trainer):
    class Trained(method_that_keeps(lambda: [layer()])):
        def attach(self, run):
            self.run = run
            self.optimizer = run.optimizer([*self.net.parameters(), *self.kept[0].parameters()])

    with pytest.raises(UnownedParameters, match="neither saved"):
        trainer(Trained).run_epoch()


def test_state_that_attach_makes_is_refused_before_training_with_advice(trainer):
    class Late(Method):
        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def attach(self, run):
            super().attach(run)
            self.register_buffer("memory", torch.zeros(run.num_train))

    class Advised(Late):
        def attach(self, run):
            Method.attach(self, run)
            self.memory = torch.zeros(run.num_train, device=run.device)

        def get_extra_state(self):
            return {"memory": getattr(self, "memory", None)}

        def set_extra_state(self, state):
            self.memory = state["memory"]

    with pytest.raises(UnsavedState, match=r"attach makes memory, .* get_extra_state"):
        trainer(Late)
    trained, new = trainer(Advised), trainer(Advised)
    trained.run_epoch()
    trained.method.memory += 1
    new.load_state(trained.state())
    assert torch.equal(new.method.memory, trained.method.memory)
