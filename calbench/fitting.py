"""What calibrators are fitted on: the pixels of some images, from statistics, from tables, or drawn from disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from calbench.calibrators import Calibrator, save_calibrator
from calbench.calibrators.maps import Scene
from calbench.calibrators.samples import calibrated, level_logits, logits_of
from calbench.calibrators.temperature import Solution, Temperature, map_derivatives, minimise
from calbench.errors import InputError
from calbench.io.files import digest
from calbench.io.sample import Sample
from calbench.kernels import measure_levels
from calbench.measure import (
    Request,
    TableReading,
    Task,
    calibrator_of,
    measure_calibrated,
    measure_calibrated_table,
    picture_of,
    read_images,
)
from calbench.parallel import parallel_map
from calbench.progress import progress_bar
from calbench.statistics import Statistics
from calbench.statistics.histogram import LEVELS
from calbench.statistics.rows import Array, owner

SCENE_BYTES = 1 << 31
"""Memory in which images are kept between epochs; others are read again."""
REQUEST = Request(scores=())
"""Calibrated maps are measured without positional scores, which calibration is not about."""

Item = Task | Sample
"""One image: files, or a sample in memory."""
Fits = Mapping[str, Sequence[tuple[Calibrator, Array]]]
"""For each contender, calibrators and the rows that each is measured on, `(rows,)` bool."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pixels to fit on.

    Attributes:
        logits: `(n,)` or `(n, C)`.
        target: `(n,)`.
        weight: `(n,)`, or None: 1 each.
        row: row of statistics that each pixel is of, `(n,)`, or None where rows are pooled.
    """

    logits: Array
    target: Array
    weight: Array | None
    row: Array | None

    def of(self, rows: Array) -> Drawn:
        """The pixels of these rows, `(rows,)` bool."""
        assert self.row is not None
        chosen = rows[self.row]
        return Drawn(self.logits[chosen], self.target[chosen], None, self.row[chosen])

    def fit(
        self, calibrator: Calibrator, advance: Callable[[], None] = lambda: None, unit_of_row: Array | None = None
    ) -> Calibrator:
        """Fit a calibrator on them; what it splits inside, it splits by these units of the rows, `(rows,)`, or by rows."""
        groups = self.row if self.row is None or unit_of_row is None else unit_of_row[self.row]
        calibrator.fit(self.logits, self.target, self.weight, groups=groups, advance=advance)
        if self.weight is not None:  # levels stand for pixels
            calibrator.summary_["pixels"] = int(self.weight.sum())
        return calibrator


class Source:
    """The images of one method on one data set, as calibrators need them.

    Attributes:
        statistics: their rows before calibration.
        max_pixels: most pixels to draw.
        seed: of the draw.
        notes: what to say about fits from this source.
        drawn: which pixels were drawn, in words; empty where it was all of them.
    """

    def __init__(self, statistics: Statistics, max_pixels: int, seed: int) -> None:
        self.statistics = statistics
        self.max_pixels = max_pixels
        self.seed = seed
        self.notes: tuple[str, ...] = ()
        self.drawn = ""

    def pixels(self, rows: Array, *, by_image: bool) -> Drawn:
        """Pixels of these rows, `(rows,)` bool; `by_image` asks for single pixels that know their image."""
        raise NotImplementedError

    def temperatures(self, fits: Sequence[Array], bounds: tuple[float, float]) -> tuple[Solution, Array] | None:
        """The exact temperature of each set of rows by passes over all pixels; None where `pixels` are all there are.

        Returns:
            The solutions, and Σ NLL of each set of rows before and after, `(2, fits)` nats.
        """
        del fits, bounds
        return None

    def scenes(self, rows: Array) -> Sequence[Scene]:
        """The images of these rows with their pictures."""
        raise NotImplementedError

    def measured(self, fits: Fits) -> dict[str, Statistics]:
        """The rows of each contender after calibration, each row by the calibrator that is measured on it."""
        raise NotImplementedError


class LevelSource(Source):
    """8-bit binary maps: 512 weighted samples a fit, and no pixel is read."""

    def __init__(self, statistics: Statistics, max_pixels: int, seed: int, images: ImageSource | None = None) -> None:
        super().__init__(statistics, max_pixels, seed)
        self.images = images
        counts = self._counts.sum((0, 1))
        hidden = float((counts[0] + counts[-1]) / max(counts.sum(), 1))
        self.notes = (
            f"fitted on 8-bit maps, {100 * hidden:.0f} % of whose pixels are at level 0 or 255: how sure the model was of "
            "them is lost (their logits are cut at ±6.2), and T comes out low; save float predictions for a T to deploy",
        ) * (hidden > 0)

    @property
    def _counts(self) -> Array:
        assert self.statistics.histogram is not None
        return self.statistics.histogram.counts

    def pixels(self, rows: Array, *, by_image: bool) -> Drawn:
        """See `Source`; pooled counts are weights, single pixels are drawn from each image's counts."""
        logits = np.tile(level_logits(), 2)
        target = np.repeat([0, 1], LEVELS)
        counts = self._counts.reshape(len(self._counts), -1)
        if not by_image:
            weight = counts[rows].sum(0).astype(np.float64)
            return Drawn(logits, target, weight, None)
        share = max(1, self.max_pixels // len(counts))
        cells, owners = [], []
        for row in np.flatnonzero(rows):
            generator = _generator(self.seed, self.statistics.names[row])
            n = min(share, int(counts[row].sum()))
            taken = generator.multivariate_hypergeometric(counts[row], n, method="marginals")
            cells.append(generator.permutation(np.repeat(np.arange(2 * LEVELS), taken)))
            owners.append(np.full(n, row))
        cell = np.concatenate(cells)
        if len(cell) < counts[rows].sum():
            self.drawn = f"{len(cell):,} of {counts[rows].sum():,} pixels, at most {share:,} of each image"
        return Drawn(logits[cell], target[cell], None, np.concatenate(owners))

    def scenes(self, rows: Array) -> Sequence[Scene]:
        """See `Source`."""
        assert self.images is not None
        return self.images.scenes(rows)

    def measured(self, fits: Fits) -> dict[str, Statistics]:
        """See `Source`."""
        from_disk = {name: pairs for name, pairs in fits.items() if pairs[0][0].needs_images}
        found = {}
        for name, pairs in fits.items():
            if name not in from_disk:
                found[name] = Statistics.concat(
                    measure_levels(self.statistics.select(rows), calibrator.transform(level_logits()))
                    for calibrator, rows in pairs
                )
        if from_disk:
            assert self.images is not None
            found |= self.images.measured(from_disk)
        return found


class TableSource(Source):
    """A classification table, whole in memory."""

    def __init__(self, statistics: Statistics, reading: TableReading, max_pixels: int, seed: int) -> None:
        super().__init__(statistics, max_pixels, seed)
        self.reading = reading

    def pixels(self, rows: Array, *, by_image: bool) -> Drawn:
        """See `Source`: all samples of the rows, whatever `max_pixels`."""
        del by_image
        sample = self.reading.sample
        logits = logits_of(sample)
        flat = logits.reshape(len(logits), -1).T
        assert sample.target is not None
        chosen = rows[self.reading.group]
        if sample.valid is not None:
            chosen = chosen & sample.valid[0]
        return Drawn(flat[chosen], sample.target[0][chosen], None, self.reading.group[chosen])

    def measured(self, fits: Fits) -> dict[str, Statistics]:
        """See `Source`."""
        return {name: self._measured(pairs) for name, pairs in fits.items()}

    def _measured(self, pairs: Sequence[tuple[Calibrator, Array]]) -> Statistics:
        reading, sample = self.reading, self.reading.sample
        p = np.full((sample.classes, 1, len(reading.group)), 1 / sample.classes)
        changed, held = (np.zeros(len(reading.group), bool) for _ in range(2))
        for calibrator, rows in pairs:
            at = np.flatnonzero(rows[reading.group])
            part = Sample(
                sample.name, sample.scores[:, at], None if sample.target is None else sample.target[:, at],
                None if sample.valid is None else sample.valid[:, at], sample.kind, sample.layout, sample.eps, sample.source,
            )  # fmt: skip
            new, other = calibrated(part, calibrator)
            p[:, :, at], changed[at], held[at] = new.scores, other[0], True
        valid = held if sample.valid is None else held & sample.valid[0]
        whole = replace(sample, scores=p, kind="probabilities", layout="CHW", eps=None, valid=valid[None])
        table = measure_calibrated_table(reading, whole, changed, REQUEST)
        return table.select(np.flatnonzero(np.any([rows for _, rows in pairs], axis=0)))


class ImageSource(Source):
    """Images read from disk (or samples in memory), as often as needed: float maps, several classes, pictures.

    Args:
        items: one for each file of predictions, in the order of `statistics`.
        jobs: worker processes.
        progress: whether to draw bars.
    """

    def __init__(
        self,
        statistics: Statistics,
        items: Sequence[Item],
        max_pixels: int,
        seed: int,
        jobs: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(statistics, max_pixels, seed)
        self.items = items
        self.jobs = jobs
        self.progress = progress
        rows_of: dict[str, list[int]] = {_name(item): [] for item in items}
        for row, name in enumerate(statistics.names):
            rows_of[name if name in rows_of else owner(name)].append(row)
        self.rows_of = list(rows_of.values())
        self._drawn: Drawn | None = None

    def pixels(self, rows: Array, *, by_image: bool) -> Drawn:
        """See `Source`; drawn once, the same share from each image."""
        del by_image
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn.of(rows)

    def _draw(self) -> Drawn:
        share = max(1, self.max_pixels // len(self.statistics.names))
        tasks = [(number, item, share, self.seed) for number, item in enumerate(self.items)]
        parts: dict[int, list[tuple[Array, Array]]] = dict(self._map("drawing pixels", _draw_item, tasks))
        logits, target, row = [], [], []
        for number, rows in enumerate(self.rows_of):
            for at, (z, y) in zip(rows, parts[number], strict=True):
                logits.append(z)
                target.append(y)
                row.append(np.full(len(y), at))
        drawn = Drawn(np.concatenate(logits), np.concatenate(target), None, np.concatenate(row))
        total = int(self.statistics.n_pixels.sum())
        if len(drawn.target) < total:
            self.drawn = f"{len(drawn.target):,} of {total:,} pixels, {share:,} of each image"
        return drawn

    @property
    def is_whole(self) -> bool:
        """Whether the pixels that were drawn are all there are."""
        assert self._drawn is not None
        return len(self._drawn.target) == int(self.statistics.n_pixels.sum())

    def temperatures(self, fits: Sequence[Array], bounds: tuple[float, float]) -> tuple[Solution, Array] | None:
        """See `Source`: Newton steps for all sets of rows at once, a pass over the files a step."""
        starts = np.array([self._start(rows) for rows in fits])
        if self.is_whole:
            return None
        passes = 0

        def summed(betas: Array) -> Array:
            """NLL and its derivatives at several β of each problem, `(m, problems)` -> `(m, 3, problems)`."""
            nonlocal passes
            passes += 1
            tasks = []
            for number, (item, rows) in enumerate(zip(self.items, self.rows_of, strict=True)):
                values = np.unique(betas[:, [k for k, of in enumerate(fits) if of[rows[0]]]])
                if len(values):
                    tasks.append((number, item, values))
            total = np.zeros((len(betas), 3, betas.shape[1]))
            found = dict(self._map(f"temperature, pass {passes}", _derive_item, tasks))
            for number, _, values in tasks:  # in order of the images, whatever worker was first
                for k, of in enumerate(fits):
                    if of[self.rows_of[number][0]]:
                        total[:, :, k] += found[number][:, np.searchsorted(values, betas[:, k])].T
            return total

        solution = minimise(lambda beta: summed(beta[None])[0], starts, bounds)
        return solution, summed(np.stack([np.ones(len(fits)), solution.beta]))[:, 0]

    def _start(self, rows: Array) -> float:
        """1 / T on the drawn pixels."""
        fitted = self.pixels(rows, by_image=False).fit(Temperature())
        assert isinstance(fitted, Temperature)
        return 1 / fitted.temperature_

    def scenes(self, rows: Array) -> Sequence[Scene]:
        """See `Source`; an image is read when it is asked for, and kept if there is room.

        Files with pictures hold one row each, so that scenes are in the order of the rows.
        """
        return _Scenes([item for item, of in zip(self.items, self.rows_of, strict=True) if rows[of[0]]])

    def measured(self, fits: Fits) -> dict[str, Statistics]:
        """See `Source`."""
        # workers read calibrators rather than receive them with each image
        with tempfile.TemporaryDirectory() as folder:
            paths: dict[int, str] = {}
            for pairs in fits.values():
                for calibrator, _ in pairs:
                    paths[id(calibrator)] = str(Path(folder, f"{len(paths)}.safetensors"))
                    save_calibrator(calibrator, paths[id(calibrator)])
            tasks = []
            for number, (item, rows) in enumerate(zip(self.items, self.rows_of, strict=True)):
                given = {
                    name: paths[id(calibrator)]
                    for name, pairs in fits.items()
                    for calibrator, of in pairs
                    if of[rows[0]]
                }
                if given:
                    tasks.append((number, item, given))
            found: dict[int, dict[str, Statistics]] = dict(self._map("calibrating", _measure_item, tasks))
        return {
            name: Statistics.concat(found[number][name] for number in sorted(found) if name in found[number])
            for name in fits
        }

    def _map(
        self, what: str, function: Callable[[Any], tuple[int, Any]], tasks: list[Any]
    ) -> Iterator[tuple[int, Any]]:
        with progress_bar(what, len(tasks), enabled=self.progress) as advance:
            for result in parallel_map(function, tasks, self.jobs):
                advance()
                yield result


class _Scenes(Sequence[Scene]):
    """Images and their pictures, read when asked for."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self._kept: dict[int, Scene] = {}
        self._room = SCENE_BYTES

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | Sequence[Scene]:
        if isinstance(index, slice):
            return _Scenes(self.items[index])
        if index in self._kept:
            return self._kept[index]
        scene = _scene(self.items[index])
        size = sum(array.nbytes for array in (scene.logits, scene.target, scene.weight, scene.image))
        if size <= self._room:
            self._room -= size
            self._kept[index] = scene
        return scene


def _scene(item: Item) -> Scene:
    samples = list(_samples(item))
    sample, picture = samples[0]
    if len(samples) > 1 or picture is None:
        raise InputError(f"{_name(item)}: calibrators that look at pictures need one image a file, and its picture")
    assert sample.target is not None
    weight = np.ones(sample.size) if sample.valid is None else sample.valid.astype(np.float64)
    return Scene(np.asarray(logits_of(sample), np.float32), sample.target.astype(np.int64), weight, picture)


def _name(item: Item) -> str:
    return item.name if isinstance(item, Sample) else item.pair.name


def _samples(item: Item) -> Iterator[tuple[Sample, Array | None]]:
    """The samples of an item, each with its picture if there is one."""
    if isinstance(item, Sample):
        yield item, None
        return
    for reading in read_images(item):
        yield reading.sample, picture_of(item, reading.sample.size)


def _generator(seed: int, name: str) -> np.random.Generator:
    """The same draw from an image, whatever order images are read in."""
    return np.random.default_rng([seed, digest(name.encode())])


def _draw_item(task: tuple[int, Item, int, int]) -> tuple[int, list[tuple[Array, Array]]]:
    """Logits and targets of some pixels of each sample of an item."""
    number, item, share, seed = task
    drawn = []
    for sample, _ in _samples(item):
        assert sample.target is not None
        logits = logits_of(sample)
        flat = logits.reshape(1 if logits.ndim == 2 else len(logits), -1)
        valid = np.arange(flat.shape[1]) if sample.valid is None else np.flatnonzero(sample.valid)
        if len(valid) > share:
            valid = np.sort(_generator(seed, sample.name).choice(valid, share, replace=False))
        z = np.ascontiguousarray(flat[:, valid].T)
        work = np.promote_types(z.dtype, np.float32)
        drawn.append((z[:, 0].astype(work) if logits.ndim == 2 else z.astype(work), sample.target.ravel()[valid]))
    return number, drawn


def _derive_item(task: tuple[int, Item, Array]) -> tuple[int, Array]:
    """What an item adds to the derivatives of the temperature."""
    number, item, beta = task
    total = np.zeros((3, len(beta)))
    for sample, _ in _samples(item):
        assert sample.target is not None
        if sample.valid is None or sample.valid.any():
            total += map_derivatives(logits_of(sample), sample.target, sample.valid, beta)
    return number, total


def _measure_item(task: tuple[int, Item, dict[str, str]]) -> tuple[int, dict[str, Statistics]]:
    """The rows of an item after each calibrator."""
    number, item, paths = task
    rows: dict[str, list[Statistics]] = {name: [] for name in paths}
    for sample, picture in _samples(item):
        for name, path in paths.items():
            rows[name].append(measure_calibrated(sample, calibrator_of(path), picture, REQUEST).under({}))
    return number, {name: Statistics.concat(parts) for name, parts in rows.items()}
