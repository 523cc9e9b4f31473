"""A device that is not there, to find on a CPU what would go wrong on a GPU.

Tensors on it hold their numbers in a CPU tensor, say that they are elsewhere, and refuse to meet tensors of the CPU as
CUDA's do. What would make the host wait for a GPU works, and is noted: reading a number, copying without pinned memory,
an index or a mask whose result has a size that the host must know.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy")
"""A kind of device that this build of torch knows by name only."""
CPU = torch.device("cpu")
aten = torch.ops.aten
READS = {"_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "unique_dim", "_unique", "_unique2",
         "unique_consecutive", "equal", "bincount", "linalg_eig", "linalg_eigvals", "_linalg_eigh",
         "linalg_lstsq", "repeat_interleave"}  # fmt: skip
"""Operators that on a GPU wait for a result to know a number or a size."""
COPIES = {"_to_copy", "copy_"}
INDEXES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_", "_unsafe_index_put"}


class Elsewhere(Tensor):
    """A tensor of the pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(cls, held.size(), device=DEVICE, **layout)
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.held})"

    def new_tensor(self, values: Any, **options: Any) -> Tensor:
        return torch.tensor(values, **{"dtype": self.dtype, "device": DEVICE, **options})  # patched while it is open

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("a tensor of another device cannot become an array; copy it to the CPU first")
        return self.detach().cpu().numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the pretended device outside `Pretence`")


class Pretence(TorchDispatchMode):
    """While it is open, `DEVICE` can be used.

    Attributes:
        waits: where the host would have waited: the operator, and the line of ours that called it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._generators: list[torch.Generator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, Elsewhere)]
        target = self._target(kwargs, bool(there))
        self._meet(name, args, kwargs, tensors, there, target)
        held, options = tree_map(_held, args), tree_map(_held, kwargs)
        if options.get("device") is not None:
            options["device"] = CPU
        options.pop("pin_memory", None)
        out = func(*held, **options)
        if target != DEVICE:
            return out
        out = tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if there else out

    @staticmethod
    def _target(kwargs: dict[str, Any], any_there: bool) -> torch.device:
        """Return where the result goes."""
        asked = kwargs.get("device")
        return torch.device(asked) if asked is not None else DEVICE if any_there else CPU

    def _meet(
        self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], there: list[Elsewhere], target: torch.device
    ) -> None:
        """Note what would wait; refuse what would not work."""
        here = [x for x in tensors if not isinstance(x, Elsewhere)]
        draws = kwargs.get("generator")
        known = {generator._cdata for generator in self._generators}  # torch wraps them anew
        if draws is not None and (target == DEVICE) != (draws._cdata in known):
            raise RuntimeError(f"{name}: a generator draws for another device than its own")
        if name in COPIES:
            crosses = bool(there and (here or target == CPU)) or (not there and target == DEVICE)
            if crosses and not kwargs.get("non_blocking"):
                self._wait(name)
        elif there and name in READS:
            self._wait(name)
        elif there and name in INDEXES:
            self._index(name, args)
        elif there and here:
            if any(x.ndim for x in here):
                raise RuntimeError(f"{name}: tensors on two devices")
            if name == "where":  # it moves a number there, unlike arithmetic
                self._wait(name)

    def _index(self, name: str, args: Any) -> None:
        indices = [x for x in args[1] if x is not None]
        if not isinstance(args[0], Elsewhere):
            raise RuntimeError(f"{name}: a tensor of the CPU indexed from another device")
        if any(x.dtype in (torch.bool, torch.uint8) or not isinstance(x, Elsewhere) for x in indices):
            self._wait(name)

    def _wait(self, name: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if _is_ours(frame.filename)]
        place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].name}" if frames else "?"
        self.waits.append(f"{name} in {place}")

    @contextlib.contextmanager
    def open(self) -> Iterator[Pretence]:
        """Open it, with what torch itself would ask a real device for."""
        pretence = self

        class Draws(torch.Generator):
            def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
                made = super().__new__(torch.Generator)
                if torch.device(device) == DEVICE:
                    pretence._generators.append(made)
                return made

        tensor = torch.tensor

        def make(values: Any, *, device: Any = None, **options: Any) -> Tensor:
            return tensor(values, **options).to(device or CPU)  # as torch does it, out of sight of modes

        patches = (
            mock.patch.object(torch, "tensor", make),
            mock.patch.object(torch, "Generator", Draws),
            mock.patch.object(torch, "autocast", _no_autocast),
            mock.patch.object(torch.nn.functional, "one_hot", _one_hot),  # as on a GPU, where it looks at no number
            mock.patch.object(Tensor, "pin_memory", lambda x: x),
        )
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            stack.enter_context(self)
            yield self


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Elsewhere) else x


def _no_autocast(*_: Any, **__: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    zeros = torch.zeros(*labels.shape, num_classes, dtype=torch.long, device=labels.device)
    return zeros.scatter(-1, labels[..., None], 1)


def _is_ours(path: str) -> bool:
    return any(f"/{folder}/" in path for folder in ("benchmark", "methods", "datasets")) and "site-packages" not in path


def elsewhere(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what a call returns with the device at hand, and where it would have waited."""
    with Pretence().open() as pretence:
        return call(), pretence.waits
