"""Which images each process sees at each step of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from calbench.statistics.rows import Array
from calbench.training.draws import rng

At = tuple[int, int]
"""Epoch and position of an image in the set: what a data loader is asked for."""


@dataclass
class Order(Sampler[list[At]]):
    """The order of an epoch: shuffled by (seed, epoch), cut into steps, each shared out to processes and parts.

    A step is `batch` images whatever the number of processes is: process r of R takes every R-th of them, in `accumulate`
    parts. The last step of an epoch has what is left; where a process gets none of it, it has no part.

    Attributes:
        n_images: in the set.
        batch: images a step.
        accumulate: parts that a process's images of a step are cut into.
        seed: of the order.
        rank, size: this process, and how many there are.
        epoch: that iteration is about, from 1.
        first: step that iteration begins with, from 0.

    >>> order = Order(5, batch=4, accumulate=2, seed=0, epoch=1)
    >>> order.steps, [len(part) for part in order]
    (2, [2, 2, 1])
    >>> halves = [Order(5, 4, 1, 0, rank, 2, epoch=1) for rank in (0, 1)]
    >>> sorted(halves[0].part(0, 0) + halves[1].part(0, 0)) == sorted(order.part(0, 0) + order.part(0, 1))
    True
    """

    n_images: int
    batch: int
    accumulate: int
    seed: int
    rank: int = 0
    size: int = 1
    epoch: int = 1
    first: int = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.n_images // self.batch)

    def parts(self, step: int) -> int:
        """How many parts this process has in a step."""
        in_step = min(self.batch, self.n_images - step * self.batch)
        return min(self.accumulate, len(range(self.rank, in_step, self.size)))

    def part(self, step: int, number: int) -> list[At]:
        """The images of one part."""
        return self._cut(self._shuffled(), step)[number]

    def __iter__(self) -> Iterator[list[At]]:
        shuffled = self._shuffled()
        for step in range(self.first, self.steps):
            yield from self._cut(shuffled, step)

    def _shuffled(self) -> Array:
        return rng(self.seed, self.epoch, "order").permutation(self.n_images)

    def _cut(self, shuffled: Array, step: int) -> list[list[At]]:
        """The parts of this process in a step."""
        if not self.parts(step):
            return []
        mine = shuffled[step * self.batch : (step + 1) * self.batch][self.rank :: self.size]
        return [[(self.epoch, int(index)) for index in part] for part in np.array_split(mine, self.parts(step))]
