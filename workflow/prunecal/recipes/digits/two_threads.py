"""Training on both halves of each batch in parallel, with results independent of the machine load.

Two Python threads with one intra-op thread each, instead of one thread with two: neither waits for
the other within a layer, which is several times faster when other processes occupy a core, and the
order of summation does not depend on the number of cores.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from prunecal.core.cli import progress

Metrics = dict[str, float]
Loss = Callable[[np.ndarray, np.random.Generator], tuple[Tensor, Metrics]]

WARM_UP = 0.1  # share of the steps
AVERAGED = 10  # steps per point of the learning curve


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes:
        name: name of the phase in the learning curve.
        steps: optimizer steps.
        batch: images per step, half of them in each thread.
        rate: AdamW's peak learning rate, for embeddings, norms, heads and the projector.
        matrix_rate: Muon's peak learning rate, for the matrices of the transformer's layers.
    """

    name: str
    steps: int
    batch: int
    rate: float
    matrix_rate: float


@contextlib.contextmanager
def two_threads() -> Iterator[Executor]:
    """Yield two worker threads; they and the caller run torch on one thread each meanwhile."""
    before = torch.get_num_threads()
    _single()
    try:
        with ThreadPoolExecutor(2, initializer=_single) as workers:
            yield workers
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _single() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # arithmetic on denormal numbers is many times slower


def train(
    phase: Phase,
    parameters: Mapping[str, Tensor],
    loss: Loss,
    images: int,
    seed: tuple[int, int],
    workers: Executor,
) -> list[dict]:
    """Minimise a loss over batches of images.

    Args:
        phase: the phase's length and learning rates.
        parameters: tensors to train, by name; ".layers." in a name marks a transformer layer.
        loss: returns the loss and the metrics of some images, given their indices and a generator.
        images: number of training images.
        seed: seed of the recipe and index of the phase.
        workers: the two threads.

    Returns:
        Points of the learning curve, each a mean over some steps: phase, step, metric, value.
    """
    trained = list(parameters.values())
    optimizers = _optimizers(phase, parameters)
    scheduled = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step / phase.steps))
        for optimizer in optimizers
    ]

    def half(step: int, part: int, indices: np.ndarray) -> tuple[Sequence[Tensor | None], Metrics]:
        value, metrics = loss(indices, np.random.default_rng([*seed, step, part]))
        return torch.autograd.grad(value, trained, allow_unused=True), metrics

    curve, recent = [], []
    batches = progress(
        _batches(images, phase, seed), total=phase.steps, what=phase.name, unit="step"
    )
    for step, batch in enumerate(batches, start=1):
        halves = list(workers.map(half, (step, step), (0, 1), (batch[0::2], batch[1::2])))
        for parameter, *gradients in zip(
            trained, *(half_gradients for half_gradients, _ in halves), strict=True
        ):
            used = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = reduce(torch.add, used).div_(len(halves)) if used else None
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        list(workers.map(lambda optimizer: optimizer.step(), optimizers))
        for scheduler in scheduled:
            scheduler.step()
        recent += [metrics for _, metrics in halves]
        if step % AVERAGED == 0 or step == phase.steps:
            for metric in recent[0]:
                value = float(np.mean([metrics[metric] for metrics in recent]))
                curve.append({"phase": phase.name, "step": step, "metric": metric, "value": value})
            recent = []
    for parameter in trained:
        parameter.grad = None
    return curve


def _optimizers(phase: Phase, parameters: Mapping[str, Tensor]) -> list[torch.optim.Optimizer]:
    """Return optimizers of different parameters: Muon's two halves, which take longest, first."""
    layers, others = [], []
    for name, value in parameters.items():
        (layers if ".layers." in name and value.ndim == 2 else others).append(value)
    muon = [
        torch.optim.Muon(
            half,
            lr=phase.matrix_rate,
            weight_decay=0.05,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        for half in (layers[0::2], layers[1::2])
        if half
    ]
    return [*muon, torch.optim.AdamW(others, lr=phase.rate, weight_decay=0.05, betas=(0.9, 0.98))]


def _schedule(done: float) -> float:
    """Return the factor of the peak learning rate: a linear warm-up, then half a cosine."""
    if done < WARM_UP:
        return (done + 1e-2) / (WARM_UP + 1e-2)
    return 0.5 * (1 + math.cos(math.pi * min(1, (done - WARM_UP) / (1 - WARM_UP)))) + 1e-3


def _batches(images: int, phase: Phase, seed: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the image indices of each step, every image once per epoch."""
    size = min(phase.batch, images)
    rng = np.random.default_rng(seed)
    order = np.empty(0, dtype=np.int64)
    for _ in range(phase.steps):
        if len(order) < size:
            order = rng.permutation(images)
        yield order[:size]
        order = order[size:]
