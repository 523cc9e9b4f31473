"""What a method sees of its run. Deliberately without a test split."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.data import Batch, Dataset, Index, Samples, to_device
from benchmark.loading import not_finite
from benchmark.protocol import Recipe
from benchmark.seeds import generator

READERS = 2
"""Threads that read batches ahead from disk."""
KEPT_BYTES = 256 * 2**20
"""Largest transformed split that a feed keeps instead of transforming it again each epoch."""


class NonFiniteLoss(RuntimeError):
    """A loss became NaN or infinite."""


class NonFiniteGradient(RuntimeError):
    """The norm of a gradient became NaN or infinite, though the loss was finite."""


@dataclass
class _Mean:
    """A running weighted mean, kept on the device."""

    total: Tensor | float = 0.0
    weight: float = 0.0

    def add(self, value: Tensor | float, weight: float) -> None:
        self.total = self.total + value * weight
        self.weight += weight


class Feed:
    """Serves one split in batches: transformed, on the device, the same whatever else runs.

    Without random augmentation the transform is applied once, where its result is small enough to keep; with it, each
    epoch draws one row of uniform numbers for each sample from (seed, epoch, salt), so the order of batches never
    changes a sample. What is on disk is read ahead by threads, whose number changes nothing either.
    """

    def __init__(
        self, dataset: Dataset, samples: Samples, device: torch.device, batch_size: int, readers: int = READERS
    ) -> None:
        """Serve the samples of one split.

        Args:
            dataset: transforms the samples.
            samples: those of the split, and no others.
            device: where batches go.
            batch_size: samples in a batch.
            readers: threads that read ahead; 0 reads when a batch is wanted.
        """
        self.labels = samples.labels.to(device)
        self.batch_size = batch_size
        self._dataset = dataset
        self._samples = samples
        self._readers = readers
        self._resident = {m: x.to(device) for m, x in samples.inputs.items() if isinstance(x, Tensor)}
        self._on_disk = {m: x for m, x in samples.inputs.items() if not isinstance(x, Tensor)}
        self._kept: dict[str, Tensor] | None = None
        self._fits: bool | None = None

    def subset(self, index: Index) -> Feed:
        """Return a feed that holds the samples at `index` and no others."""
        return Feed(self._dataset, self._samples.subset(index), self.labels.device, self.batch_size, self._readers)

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self) -> Iterator[dict[str, Tensor]]:
        """Yield the inputs of every sample once, in order, without augmentation."""
        yield from self._serve(torch.arange(len(self)).split(self.batch_size), None)

    def at(self, rows: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield the inputs of the samples at `rows` alone, without augmentation, and their positions.

        They come in the batches of `in_order`, of which the other samples are left out, so that what a network makes
        of them has the same bits. A batch of none is skipped.

        Args:
            rows: positions (n,), in ascending order.
        """
        chosen = rows.cpu()
        sizes = (chosen // self.batch_size).unique_consecutive(return_counts=True)[1].tolist()
        chunks = chosen.split(sizes)
        yield from zip(chunks, self._serve(chunks, None), strict=True)

    def not_finite(self) -> dict[str, list[str]]:
        """Return the ids of the samples that hold NaN or infinity without augmentation, of modalities that have any."""
        found = defaultdict[str, list[str]](list)
        start = 0
        for inputs in self.in_order():
            for modality, x in inputs.items():
                bad = torch.nonzero(not_finite(x)).flatten().tolist()
                found[modality] += [self._samples.ids[start + i] for i in bad]
            start += len(next(iter(inputs.values())))
        return {modality: ids for modality, ids in found.items() if ids}

    def shuffled(self, *seed: str | int, drop_last: bool = False) -> Iterator[Batch]:
        """Yield one epoch in an order that is a function of `seed` alone."""
        sizes = batch_sizes(len(self), self.batch_size, drop_last)
        order = torch.randperm(len(self), generator=generator(*seed, "order"))
        draws = None
        if self._dataset.num_draws:
            draws = torch.rand((len(self), self._dataset.num_draws), generator=generator(*seed, "draws"))
        chunks = order[: sum(sizes)].split(sizes)
        for rows, inputs in zip(chunks, self._serve(chunks, draws), strict=True):
            index = to_device(rows, self.labels.device)
            yield Batch(inputs, self.labels[index], index)

    def _serve(self, chunks: Sequence[Tensor], draws: Tensor | None) -> Iterator[dict[str, Tensor]]:
        """Yield the transformed inputs of each chunk of positions."""
        if draws is None and self._keep():
            assert self._kept is not None
            yield from ({m: x[to_device(rows, x.device)] for m, x in self._kept.items()} for rows in chunks)
            return
        for rows, raw in zip(chunks, self._read(chunks), strict=True):
            given = None if draws is None else to_device(draws[rows], self.labels.device)
            yield self._dataset.transform(raw, given)

    def _keep(self) -> bool:
        """Transform everything once, if the result is small enough to keep; return whether it is."""
        if self._fits is None:
            rows = torch.arange(len(self)).split(self.batch_size)
            sample = self._dataset.transform(next(self._read(rows[0][:1].split(1))), None)
            self._fits = len(self) * sum(x.nbytes for x in sample.values()) <= KEPT_BYTES
            if self._fits:
                parts = [self._dataset.transform(raw, None) for raw in self._read(rows)]
                self._kept = {m: torch.cat([part[m] for part in parts]) for m in parts[0]}
        return self._fits

    def _read(self, chunks: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yield the inputs of each chunk of positions as loaded, on the device."""
        if not self._on_disk or not self._readers:
            yield from (self._to_device(rows, self._fetch(rows)) for rows in chunks)
            return
        with ThreadPoolExecutor(self._readers) as pool:
            waiting: deque[tuple[Tensor, Future[dict[str, Tensor]]]] = deque()
            for rows in chunks:
                waiting.append((rows, pool.submit(self._fetch, rows)))
                if len(waiting) > self._readers:
                    first, future = waiting.popleft()
                    yield self._to_device(first, future.result())
            for first, future in waiting:
                yield self._to_device(first, future.result())

    def _fetch(self, rows: Tensor) -> dict[str, Tensor]:
        """Read what is on disk; into pinned memory where it goes to a GPU."""
        read = {m: x.take(rows.numpy()) for m, x in self._on_disk.items()}
        return {m: x.pin_memory() for m, x in read.items()} if self.labels.is_cuda else read

    def _to_device(self, rows: Tensor, read: dict[str, Tensor]) -> dict[str, Tensor]:
        device = self.labels.device
        index = to_device(rows, device)
        return {
            m: self._resident[m][index] if m in self._resident else to_device(read[m], device)
            for m in self._samples.inputs
        }


def batch_sizes(count: int, size: int, drop_last: bool = False) -> list[int]:
    """Return the batch sizes that make up one epoch of `count` samples.

    A last batch of one sample joins the batch before it, since batch normalisation needs two.
    """
    full, rest = divmod(count, size)
    sizes = [size] * full
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest and not (drop_last and sizes):
        sizes.append(rest)
    return sizes


class Run:
    """A method's view of its run: device, seed, budget, recipe, training batches.

    Attributes:
        device: where tensors live.
        seed: the run's seed.
        epochs: length of training.
        steps_per_epoch: batches in one epoch of `train_batches`.
        num_train: samples in the training split, without the held-out share.
    """

    def __init__(
        self, train: Feed, held_out: Feed | None, recipe: Recipe, seed: int, device: torch.device, num_classes: int
    ) -> None:
        self.device = device
        self.seed = seed
        self.epochs = recipe.epochs
        self.num_classes = num_classes
        self.num_train = len(train)
        self.steps_per_epoch = len(batch_sizes(len(train), recipe.batch_size, recipe.drop_last))
        self.optimizers: list[Optimizer] = []
        self._samples_served = 0
        self._train = train
        self._held_out = held_out
        self._recipe = recipe
        self._epoch = 0
        self._means: dict[str, _Mean] = {}
        self._step = torch.zeros((), device=device)
        self._bad_loss, self._bad_gradient = (torch.full((), float("inf"), device=device) for _ in range(2))
        self._whole: Run | None = None

    # --- for methods -------------------------------------------------------------------------------------------

    def subset(self, rows: Tensor) -> Run:
        """Return this run on some of its training samples, for methods that divide them.

        Batches are of those samples alone and give positions among them. All else is this run's: optimizers, scheduled
        and checkpointed by the trainer, held-out samples, what is recorded and counted.

        Args:
            rows: positions of the samples in the training split (n,).
        """
        part = copy.copy(self)
        part._whole = self._whole or self
        part._train = self._train.subset(rows.numpy())
        part.num_train = len(rows)
        part.steps_per_epoch = len(batch_sizes(len(rows), self._recipe.batch_size, self._recipe.drop_last))
        return part

    @property
    def train_labels(self) -> Tensor:
        """Class of each training sample, by position (num_train,)."""
        return self._train.labels

    @property
    def samples_served(self) -> int:
        """Samples that `train_batches` and `counted` have served in this epoch, to all parts of the run together."""
        return (self._whole or self)._samples_served

    def optimizer(self, params: Iterable[nn.Parameter], **overrides: Any) -> Optimizer:
        """Return the protocol's optimizer over `params`; the trainer schedules and checkpoints it.

        Args:
            params: what to train.
            overrides: settings of the recipe's optimizer to change, such as `lr`.
        """
        optimizer = self.probe_optimizer(params, **overrides)
        self.optimizers.append(optimizer)
        self._schedule(optimizer)
        return optimizer

    def probe_optimizer(self, params: Iterable[nn.Parameter], **overrides: Any) -> Optimizer:
        """Return an optimizer of the same recipe that the trainer neither schedules nor checkpoints."""
        optimizer = self._recipe.optimizer.build(params, **overrides)
        optimizer.register_step_pre_hook(self._check_gradients)
        return optimizer

    def add_parameters(self, optimizer: Optimizer, params: Iterable[nn.Parameter], lr: float | None = None) -> None:
        """Let `optimizer` also train `params`, from now on at the scheduled rate. For networks that grow.

        Args:
            optimizer: one from `optimizer`.
            params: what to train too.
            lr: their rate before the schedule; None for the optimizer's own.
        """
        optimizer.add_param_group({"params": list(params), **({} if lr is None else {"lr": lr})})
        self._schedule(optimizer)

    def replace_parameter(self, optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
        """Let `optimizer` train `new` in the place of `old`, of which it is a longer copy.

        State of the optimizer that has the shape of `old`, such as momentum, is kept and zero for what is new.
        """
        for group in optimizer.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
        state = optimizer.state.pop(old, None)
        if state is not None:
            optimizer.state[new] = {name: _grown(value, old, new) for name, value in state.items()}

    def backward(self, loss: Tensor) -> None:
        """Back-propagate a scalar loss. The first step with a non-finite loss is recorded without a sync."""
        self._note_step(self._bad_loss, torch.isfinite(loss.detach()))
        torch.autograd.backward(loss)

    def train_batches(self, epoch: int, salt: int = 0, count: bool = True) -> Iterator[Batch]:
        """Yield the training split once; the order is a function of (seed, epoch, salt) alone.

        Args:
            epoch: decides order and augmentation.
            salt: gives the same epoch another order.
            count: count the samples as trained on; False for a pass whose trained samples go through `counted`.
        """
        for batch in self._train.shuffled(self.seed, epoch, salt, drop_last=self._recipe.drop_last):
            yield self.counted(batch) if count else batch

    def counted(self, batch: Batch) -> Batch:
        """Return a batch that was made of uncounted ones, its samples now counted as trained on."""
        (self._whole or self)._samples_served += len(batch.labels)
        return batch

    def train_in_order(self) -> Iterator[Batch]:
        """Yield the training split once in order, without augmentation: for statistics and prototypes."""
        yield from self.train_at(torch.arange(self.num_train))

    def train_at(self, rows: Tensor) -> Iterator[Batch]:
        """Yield some training samples in order, without augmentation, and read no others.

        Args:
            rows: positions in the training split (n,), in ascending order.
        """
        for chunk, inputs in self._train.at(rows):
            index = chunk.to(self.device)
            yield Batch(inputs, self._train.labels[index], index)

    def held_out_batches(self, epoch: int, salt: int = 0) -> Iterator[Batch]:
        """Yield the share held out from train for methods that learn from unseen samples (`held_out_share`)."""
        if self._held_out is None:
            raise RuntimeError("no held-out share: set `held_out_share` in the method's __init__")
        yield from self._held_out.shuffled(self.seed, epoch, salt, "held out")

    def log(self, **scalars: Tensor | float) -> None:
        """Record scalars for this epoch's history; several values of one name are averaged."""
        for name, value in scalars.items():
            self._note(name, value, 1.0)

    # --- for the trainer ---------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Set every rate for `epoch` and forget the last epoch's scalars."""
        self._epoch = epoch
        self._means.clear()
        self._samples_served = 0
        self._step.zero_()
        for optimizer in self.optimizers:
            self._schedule(optimizer)

    def end_step(self, scalars: dict[str, Tensor], size: int) -> None:
        """Record what a step returned, weighted by the batch's size."""
        self._step += 1
        for name, value in scalars.items():
            self._note(name, value, size)

    def check_finite(self) -> None:
        """Raise `NonFiniteLoss` or `NonFiniteGradient` if a loss or gradient of this epoch was NaN or infinite."""
        loss, gradient = float(self._bad_loss), float(self._bad_gradient)
        first = min(loss, gradient)
        if first == float("inf"):
            return
        where = f"became NaN or infinite in epoch {self._epoch}, step {int(first)}"
        if loss <= gradient:  # of the same step, the loss is the cause
            raise NonFiniteLoss(f"loss {where}")
        raise NonFiniteGradient(f"the norm of a gradient {where}, though the loss was finite until then")

    def means(self) -> dict[str, float]:
        """Return this epoch's scalars, averaged."""
        return {name: float(mean.total) / mean.weight for name, mean in sorted(self._means.items())}

    def unowned(self, module: nn.Module) -> list[str]:
        """Return the names of trainable parameters that no registered optimizer owns."""
        owned = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        return [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in owned]

    def _schedule(self, optimizer: Optimizer) -> None:
        # torch's schedulers mishandle groups added in mid-run, so the rate is set from the group's own start.
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * self._recipe.schedule.factor((self._whole or self)._epoch, self.epochs)

    def _check_gradients(self, optimizer: Optimizer, *_: Any) -> None:
        """Record without a sync whether what an optimizer is about to step by, edits included, is finite."""
        groups = (group["params"] for group in optimizer.param_groups)
        gradients = [p.grad for params in groups for p in params if p.grad is not None and p.grad.numel()]
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients))  # a tenth of what asking each value costs
            self._note_step(self._bad_gradient, torch.isfinite(norms).all())

    def _note_step(self, first: Tensor, fine: Tensor) -> None:
        """Keep in `first` the earliest step in which something was not fine."""
        torch.minimum(first, torch.where(fine, float("inf"), self._step), out=first)

    def _note(self, name: str, value: Tensor | float, weight: float) -> None:
        value = value.detach() if isinstance(value, Tensor) else value
        self._means.setdefault(name, _Mean()).add(value, weight)


def _grown(value: Any, old: Tensor, new: Tensor) -> Any:
    """Pad optimizer state with zeros where it has the shape of a parameter that has grown along its first axis."""
    if not isinstance(value, Tensor) or value.shape != old.shape:
        return value
    return torch.cat([value, value.new_zeros(len(new) - len(old), *new.shape[1:])])
