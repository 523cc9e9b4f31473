"""Initial weights: drawn as the literature draws them, or read from files. Nothing is unpickled.

Files that are not named by a path are in one folder, `weights_folder()`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.cache import digest_files
from benchmark.errors import Problem, UserError, nearest

SHOWN = 5
"""How many keys a message lists."""


def weights_folder() -> Path:
    """Return the folder of weights: `checkpoints` in torch.hub's folder, which `$TORCH_HOME` moves."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def locate(given: str) -> Path | None:
    """Return the file or folder of that path, or of that name in the weights folder; None if there is neither."""
    candidates = (Path(given).expanduser(), weights_folder() / given)
    return next((path for path in candidates if path.exists()), None)


def find_weights(given: str, where: str) -> Path:
    """Return the file of weights given by its path, or by its name in the weights folder.

    Raises:
        UserError: when there is no such file.
    """
    path = locate(given)
    if path is None or not path.is_file():
        advice = f"Give the file's path, or put it into {weights_folder()}."
        raise UserError(Problem(where, "a file of weights", f"no file {given}", advice))
    return path


def find_torchvision_weights(model: str, given: str, where: str) -> Path:
    """Return the file of weights that torchvision lists for a model, or that a path names. Downloads nothing.

    Args:
        model: torchvision's name of the model, such as "resnet18".
        given: torchvision's name of the weights, such as "IMAGENET1K_V1", or as for `find_weights`.
        where: what the weights are for, for messages.

    Raises:
        UserError: when there is no such file; with its address if it is one of torchvision's.
    """
    from torchvision.models import get_model_weights

    known: dict[str, str] = {weights.name: weights.url for weights in get_model_weights(model)}
    if given not in known:
        if locate(given) is None:
            advice = f"{nearest(given, known)} A file is looked for by its path and in {weights_folder()}."
            raise UserError(Problem(where, "the name of torchvision weights, or a file", repr(given), advice))
        return find_weights(given, where)
    path = weights_folder() / known[given].rpartition("/")[2]
    if not path.is_file():
        advice = f"Download {known[given]} where there is a network and put it into {path.parent}."
        raise UserError(Problem(where, f"the file {path.name} for {given}", f"no {path}", advice))
    return path


def digest_weights(files: Iterable[Path]) -> str:
    """Return a digest of files' names and contents, wherever they are; large files are read once (`digest_files`)."""
    parts = [digest_files([path], path.parent) for path in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution's weight (O, C, ...) for another number of input channels (O, channels, ...).

    Every new channel gets the mean over the old ones times C / channels, so that an input whose channels are all
    equal gets the response that it got from the old weight. The same number of channels changes nothing.
    """
    old = weight.shape[1]
    if old == channels:
        return weight
    mean = weight.mean(1, keepdim=True)
    return mean.expand(-1, channels, *weight.shape[2:]) * (old / channels)


def load_weights(module: nn.Module, path: Path, where: str, stem: str, unused: str) -> None:
    """Load a file of weights into a module.

    Args:
        module: takes the weights.
        path: a file that `torch.save` wrote: {name: tensor}.
        where: what the weights are for, for messages.
        stem: name of the first convolution's weight, which `adapt_stem` fits to the module's.
        unused: prefix of the names of the file's classifier, which is left out.

    Raises:
        UserError: when the file cannot be read, or its names or shapes are not the module's.
    """
    given = {name: x for name, x in read_weights(path, where).items() if not name.startswith(unused)}
    wanted = module.state_dict()
    if stem in given and given[stem].ndim == wanted[stem].ndim:
        given[stem] = adapt_stem(given[stem], wanted[stem].shape[1])
    _compare(given, wanted, f"{where} from {path}")
    module.load_state_dict(given, strict=False)


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """Read a file of weights, tensors only: code in it is refused, not run.

    Raises:
        UserError: when it is truncated or holds anything else.
    """
    where = f"{where} from {path}"
    expected = "a file of tensors by name that torch.save wrote"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes lead to
        size = f"{path.stat().st_size:,} bytes that cannot be read as one"
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise UserError(Problem(where, expected, f"{size} ({reason or type(error).__name__})")) from None
    if not isinstance(content, Mapping):
        raise UserError(Problem(where, expected, type(content).__name__))
    if wrong := [name for name, x in content.items() if not isinstance(x, Tensor)]:
        raise UserError(Problem(where, expected, f"something else under {listed(wrong)}"))
    return dict(content)


def _compare(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Raise `UserError` with the names that are missing or unknown and the shapes that differ.

    `num_batches_tracked` may be missing: files from before torch 0.4 lack it, and nothing here reads it.
    """
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    both = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    problems = []
    if missing:
        problems.append(Problem(where, f"weights named {listed(missing)}", "none of these"))
    if unknown:
        problems.append(Problem(where, "no other weights", listed(unknown)))
    if both:
        shapes = [f"{name} {tuple(wanted[name].shape)}" for name in both]
        got = [f"{name} {tuple(given[name].shape)}" for name in both]
        problems.append(Problem(where, f"the shapes {listed(shapes)}", listed(got)))
    if problems:
        raise UserError(*problems)


def listed(names: Sequence[str]) -> str:
    """Return the first `SHOWN` names, and how many there are if that is not all."""
    more = f" ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
