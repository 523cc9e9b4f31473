"""What of a method is trained, saved and moved: everything in it that requires a gradient must be all three."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.method import Method
from benchmark.training import Feed, Run

SHOWN = 4
"""Parameters named of each attribute."""
DEEPEST = 8
"""Containers within containers that are looked into."""
TORCHS = frozenset(vars(nn.Module()))
"""Attributes of every module, which torch looks after."""
OPAQUE = (str, bytes, int, float, bool, type(None), type, types.ModuleType, Run, Feed, Optimizer)
"""What is not looked into: it holds nothing, or belongs to the trainer."""


class UnownedParameters(RuntimeError):
    """Something that requires a gradient is in no registered optimizer, or is no registered parameter."""

    def __init__(self, message: str, attribute: str = "") -> None:
        """Keep the message and the attribute of the method that it is about."""
        super().__init__(message)
        self.attribute = attribute


class UnsavedState(RuntimeError):
    """A method makes state where one that is loaded for evaluation does not."""

    def __init__(self, message: str, attribute: str) -> None:
        """Keep the message and the attribute of the method that it is about."""
        super().__init__(message)
        self.attribute = attribute


@dataclass(frozen=True)
class Stray:
    """A tensor that requires a gradient and is no registered parameter."""

    owner: str
    """The attribute that holds it, as `net.head.layers`."""
    path: str
    """Where it is, as `net.head.layers[0].weight`."""
    holder: Any
    """What the attribute holds."""

    @property
    def advice(self) -> str:
        """What to use in the place of the container."""
        if isinstance(self.holder, Tensor):
            return "make it an nn.Parameter"
        if isinstance(self.holder, Mapping):
            single = any(isinstance(value, nn.Module) for value in self.holder.values())
            return f"use nn.{'ModuleDict' if single else 'ParameterDict'} in the place of the dict"
        if isinstance(self.holder, list | tuple | set):
            single = any(isinstance(value, nn.Module) for value in self.holder)
            return f"use nn.{'ModuleList' if single else 'ParameterList'} in the place of the {_kind(self.holder)}"
        return "assign its modules and parameters to attributes of the method"


def check_ownership(method: Method) -> None:
    """Raise `UnownedParameters` unless whatever of a method requires a gradient is registered and in an optimizer."""
    strays: dict[str, list[Stray]] = {}
    for stray in find_strays(method):
        strays.setdefault(stray.owner, []).append(stray)
    if strays:
        said = [
            f"self.{owner} is a {_kind(found[0].holder)}, in which torch does not see "
            f"{_listed([stray.path for stray in found])}: neither saved, nor moved to the device, nor in an optimizer; "
            f"{found[0].advice}"
            for owner, found in strays.items()
        ]
        raise UnownedParameters(
            "; ".join(said) + ". Freeze what is not to learn with requires_grad_(False)", next(iter(strays))
        )
    if unowned := method.run.unowned(method):
        raise UnownedParameters(
            f"expected every trainable parameter in an optimizer, got none for {', '.join(unowned)}; "
            "use run.optimizer or run.add_parameters, or freeze with requires_grad_(False)"
        )


def find_strays(method: nn.Module) -> Iterator[Stray]:
    """Yield what can be reached from a method, requires a gradient and is no parameter that torch knows of."""
    known = {id(module) for module in method.modules()} | {id(parameter) for parameter in method.parameters()}
    for name, module in method.named_modules():
        for key, value in vars(module).items():
            if key not in TORCHS:
                owner = f"{name}.{key}" if name else key
                for path in _reach(value, owner, known, DEEPEST):
                    yield Stray(owner, path, value)


def _reach(value: Any, path: str, seen: set[int], depth: int) -> Iterator[str]:
    if isinstance(value, OPAQUE) or id(value) in seen or not depth:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            yield path
        return
    for place, inner in _inside(value, path):
        yield from _reach(inner, place, seen, depth - 1)


def _inside(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """Return what a value holds, each with its path."""
    if isinstance(value, nn.Module):
        inner: Iterable[tuple[str, Any]] = [*value._parameters.items(), *value._modules.items()]
        return [(f"{path}.{key}", one) for key, one in [*inner, *_own(value)]]
    if isinstance(value, Mapping):
        return [(f"{path}[{key!r}]", one) for key, one in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{path}[{i}]", one) for i, one in enumerate(value)]
    if isinstance(value, partial | types.MethodType):
        held = value.__self__ if isinstance(value, types.MethodType) else (value.func, value.args, value.keywords)
        return [(path, held)]
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        return [(f"{path}: {name}", cell.cell_contents) for name, cell in cells if _filled(cell)]
    return [(f"{path}.{key}", one) for key, one in getattr(value, "__dict__", {}).items()]


def _own(module: nn.Module) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in vars(module).items() if key not in TORCHS]


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _kind(value: Any) -> str:
    return "plain tensor" if isinstance(value, Tensor) else f"plain {type(value).__name__}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def state_names(method: nn.Module) -> set[str]:
    """Return the names of a method's parameters and of the buffers that are saved."""
    names = {name for name, _ in method.named_parameters(remove_duplicate=False)}
    for prefix, module in method.named_modules(remove_duplicate=False):
        saved = module._buffers.keys() - module._non_persistent_buffers_set
        names |= {f"{prefix}.{name}" if prefix else name for name in saved}
    return names


def check_state(method: Method, before: set[str]) -> None:
    """Raise `UnsavedState` if `attach` made state that a method loaded for evaluation has no place for.

    Args:
        method: after `attach`.
        before: `state_names` before it.
    """
    made = sorted(state_names(method) - before)
    grows = any(type(module).set_extra_state is not nn.Module.set_extra_state for module in method.modules())
    if made and not grows:  # what grows may make it again when its state is loaded
        raise UnsavedState(
            f"attach makes {_listed(made)}, which a method that is loaded for evaluation, without a run, has no place "
            "for; make it in __init__ or build_net. Where its size is known in attach alone, keep it as a plain tensor "
            "that get_extra_state returns and set_extra_state takes",
            made[0].partition(".")[0],
        )
