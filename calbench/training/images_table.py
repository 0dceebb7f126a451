"""What is known of each training image: its α, and how it fared at its last visit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calbench.errors import FormatError
from calbench.io.files import write_text
from calbench.training.distributed import World

COLUMNS = ("alpha", "visits", "loss", "accuracy")


@dataclass(frozen=True, eq=False)
class ImageTable:
    """A row per training image, keyed by its name.

    Each process writes the rows of the images it sees; `share` spreads them to all.

    Attributes:
        names: of the images.
        values: `(images, 4)` float32, see `COLUMNS`: α; visits so far; mean NLL against the unperturbed label, nats, and pixel
            accuracy at the last visit, NaN before the first.
        seen: `(images,)` bool, written by this process since the last `share`.
    """

    names: tuple[str, ...]
    values: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, names: Sequence[str], device: torch.device, alpha: float = 0.0) -> ImageTable:
        """All images before training."""
        values = torch.tensor([alpha, 0.0, float("nan"), float("nan")], device=device).repeat(len(names), 1)
        return cls(tuple(names), values, torch.zeros(len(names), dtype=torch.bool, device=device))

    @property
    def alpha(self) -> Tensor:
        """α of each image, `(images,)`."""
        return self.values[:, 0]

    def record(self, index: Tensor, alpha: Tensor, loss: Tensor, accuracy: Tensor) -> None:
        """Take down a visit to some images, `(n,)` each; a loss of NaN is that of an image whose pixels are all void."""
        visits = self.values[index, 1] + ~loss.isnan()
        self.values[index] = torch.stack([alpha, visits, loss, accuracy], dim=1)
        self.seen[index] = True

    def share(self, world: World) -> None:
        """Take over the rows that other processes wrote; no image is seen by two between two calls."""
        if world.size > 1:
            mine = torch.where(self.seen[:, None], self.values, torch.zeros_like(self.values))
            theirs = world.sum(mine)
            seen = world.sum(self.seen.float()) > 0
            self.values.copy_(torch.where(seen[:, None], theirs, self.values))
        self.seen.zero_()

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"names": list(self.names), "values": self.values.cpu()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the rows of a checkpoint, by name.

        Raises:
            FormatError: of other images.
        """
        rows = dict(zip(state["names"], state["values"], strict=True))
        if rows.keys() != set(self.names):
            raise FormatError("the checkpoint holds other training images than these; start afresh with --force")
        self.values.copy_(torch.stack([rows[name] for name in self.names]))

    def write(self, path: Path) -> None:
        """Write `alphas.csv`: name and the columns, full precision; empty where there is no value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", *COLUMNS))
        for name, (alpha, visits, *rest) in zip(self.names, self.values.tolist(), strict=True):
            writer.writerow((name, alpha, int(visits), *("" if value != value else value for value in rest)))
        write_text(path, text.getvalue())
