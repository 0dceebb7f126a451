"""The page: one HTML file with every table, figure, definition and setting of a report, which needs no network."""

from __future__ import annotations

import hashlib
import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from calbench.evaluate import Value, option_text
from calbench.findings import SEVERITIES, Finding
from calbench.noise import Noise
from calbench.report.gallery import CAPTIONS, GalleryRow
from calbench.report.paper import Column, WideTable
from calbench.report.plots import Plot, Section
from calbench.report.seeds import SeedTable
from calbench.report.seeds import signs_of as signs_over_seeds
from calbench.report.style import GREY, INK, PAPER
from calbench.report.tables import AS_GOOD, dataset_title, find_value, headline_columns, legend, shown_value, signs_of
from calbench.results import Key, Results
from calbench.statistics.bundle import ALL

if TYPE_CHECKING:
    from markupsafe import Markup

SECTIONS: dict[Section, str] = {
    "training": "Training",
    "reliability": "Reliability",
    "curves": "Curves",
    "where": "Where it is miscalibrated",
    "images": "Images",
    "outside": "Out of distribution",
    "methods": "Over methods",
}
"""Headings of the parts of a page, in their order."""

REGIONS = {
    "boundary": "within {width:g} pixels of a pixel of another class",
    "interior_fg": "other foreground",
    "interior_bg": "other background",
    "interior": "all other pixels",
    "size_q1": "the quarter of the images with the smallest share of foreground",
    "size_q2": "the next quarter",
    "size_q3": "the third quarter",
    "size_q4": "the quarter with the largest share",
}
"""What the regions of an image, and the quarters of a data set, hold."""

_HOUSE_COLOURS = {INK: "--ink", "#000000": "--ink", PAPER: "--card", GREY: "--grey"}
_COLOUR = re.compile("|".join(_HOUSE_COLOURS), re.IGNORECASE)
_TARGET = re.compile(r"^(#|url\(#)([^)]+)(\)?)$")
_FONT = re.compile(r"font-family: 'DejaVu Sans'[^;]*(; |$)")
_REFERENCE = re.compile(r"arXiv:(?P<arxiv>\d{4}\.\d{4,5})|doi:(?P<doi>10\.\S+)|(?P<openreview>openreview\.net/\S+)")
_PIXELS_PER_POINT = 96 / 72


@dataclass(frozen=True)
class Page:
    """Everything a page shows.

    Attributes:
        title: heading of the page, and of its window.
        results: whose numbers are shown.
        tables: headline tables, one a data set, out-of-distribution sets too.
        noise: data set -> how large differences between methods must be.
        as_good: (data set, metric) -> names of the methods that are not told apart from the best, it included.
        figures: each with its SVG.
        gallery: images on which methods are calibrated worst and best.
        notes: what the report could not make, and why.
        sources: results folder -> its resolved configuration.
        command: that makes this page again.
        seeds: tables over the seeds of trained methods, one a data set.
    """

    title: str
    results: Results
    tables: Sequence[WideTable]
    noise: Mapping[str, Sequence[Noise]]
    as_good: Mapping[tuple[str, str], frozenset[str]]
    figures: Sequence[tuple[Plot, str]]
    gallery: Sequence[GalleryRow]
    notes: Sequence[str]
    sources: Mapping[str, Mapping[str, Any]]
    command: str
    seeds: Sequence[SeedTable] = ()


class Cell(NamedTuple):
    """A number in a table: the value, its signs, its rank in the column, whether it is as good as the best."""

    value: Value | None
    signs: str
    rank: int = 0
    as_good: bool = False


class Row(NamedTuple):
    """A row of a table: what it is of, and its numbers."""

    labels: tuple[str, ...]
    cells: Sequence[Cell]


class Drawing(NamedTuple):
    """A figure with its place in the page, its SVG and the width it was drawn for, CSS pixels."""

    anchor: str
    plot: Plot
    svg: Markup
    width: int


@dataclass(frozen=True)
class Sheet:
    """A table of the page: rows of labels and cells, and the sentences that explain its signs."""

    anchor: str
    caption: str
    labels: tuple[str, ...]
    columns: Sequence[Column]
    rows: Sequence[Row]
    legend: str


@dataclass(frozen=True)
class Part:
    """What a chapter says about one subject, folded away in all chapters but the first."""

    anchor: str
    title: str
    figures: Sequence[Drawing]
    sheet: Sheet | None
    gallery: Mapping[Key, Sequence[GalleryRow]]


@dataclass(frozen=True)
class Chapter:
    """The training, one data set, or what is out of distribution."""

    anchor: str
    title: str
    sheets: Sequence[Sheet]
    parts: Sequence[Part]
    noise: Sequence[Noise] = ()
    units: str = ""


def render_page(page: Page) -> str:
    """The page as one HTML document: styles, script and pictures inside; it opens no connection.

    Texts from file names are escaped, and a content security policy lets no script run but the page's own.

    >>> from calbench import Results, Settings, collect
    >>> from calbench.synthetic import samples
    >>> results = Results(collect(samples(2), scores=()), Settings(metrics=("ece",), n_boot=0))
    >>> html = render_page(Page("A & B", results, (), {}, {}, (), (), (), {}, "calbench report"))
    >>> "<h1>A &amp; B</h1>" in html
    True
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("calbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": shown_value, "exact": _exact, "linked": _linked, "pretty": _pretty}
    templates = files("calbench.report") / "templates"
    style, script = ((templates / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    results = page.results
    return environment.get_template("report.html.j2").render(
        page=page,
        chapters=list(_chapters(page)),
        findings=_grouped(results.findings),
        notes=[*page.notes, *results.run.notes, *results.warnings],
        document=results.to_json(),
        pictures={name: text for name, text in CAPTIONS.items() if any(name in row.pictures for row in page.gallery)},
        arrows={metric.name: metric.arrow for metric in results.settings.chosen},
        options={metric.name: option_text(results.settings.options_of(metric)) for metric in results.settings.chosen},
        level=f"{100 * results.settings.ci:g} %",
        methods=list(dict.fromkeys(key.name for key in results.evaluators)),
        datasets=_datasets(results),
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def themed(svg: str, prefix: str, label: str) -> tuple[str, int]:
    """An SVG of matplotlib made fit to stand inside a page, beside others.

    It scales with its card, house colours follow the page's theme, identifiers are its own, and what no browser reads is
    gone.

    Args:
        svg: the file's text.
        prefix: of its identifiers, unique in the page.
        label: what it is of, for those who do not see it.
    Returns:
        The text, and the width the figure was drawn for, CSS pixels.

    >>> themed('<svg width="72pt" height="9pt" viewBox="0 0 72 9"><g id="axes_1"/></svg>', "f1-", "A & B")
    ('<svg viewBox="0 0 72 9" role="img" aria-label="A &amp; B"><g /></svg>', 96)
    """
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    ids: dict[str, str] = {}
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        for name, value in attributes.items():
            if found := _TARGET.fullmatch(value) if name in ("href", "clip-path") else None:
                ids.setdefault(found[2], f"{prefix}{len(ids)}")
        element.attrib.clear()
        element.attrib.update(attributes)
        if element.tag != "text" and not (element.text or "").strip():
            element.text = None
        element.tail = element.tail if (element.tail or "").strip() else None
    for element in root.iter():
        _settle(element, ids)
    width = round(float(root.attrib.pop("width").removesuffix("pt")) * _PIXELS_PER_POINT)
    del root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode"), width


def _local(name: str) -> str:
    """A name without its namespace, which HTML knows by itself."""
    return name.rpartition("}")[2]


def _settle(element: ElementTree.Element, ids: Mapping[str, str]) -> None:
    """Identifiers that are used get their new names, others go; paths on one line; colours and fonts of the page."""
    attributes = element.attrib
    name = attributes.pop("id", "")
    if name in ids:
        attributes["id"] = ids[name]
    for key, value in attributes.items():
        if key in ("href", "clip-path"):
            attributes[key] = _TARGET.sub(lambda found: f"{found[1]}{ids[found[2]]}{found[3]}", value)
        elif key == "d":
            attributes[key] = " ".join(value.split())
        elif key == "style":
            coloured = _COLOUR.sub(lambda found: f"var({_HOUSE_COLOURS[found[0].upper()]})", value)
            attributes[key] = _FONT.sub("", coloured)


def _chapters(page: Page) -> Iterator[Chapter]:
    """The training, whose numbers over seeds sum all up; then each data set; then what is out of distribution."""
    from markupsafe import Markup

    results = page.results
    drawings = []
    for i, (plot, svg) in enumerate(page.figures, 1):
        text, width = themed(svg, f"f{i}-", plot.title)
        drawings.append(Drawing(f"f{i}", plot, Markup(text), width))
    inside = [section for section in SECTIONS if section not in ("outside", "training")]
    training = Chapter(
        "training",
        SECTIONS["training"],
        list(_sheets_over_seeds(page.seeds, "training")),
        list(_parts(page, "training", None, ["training"], drawings)),
    )
    if training.sheets or training.parts:
        yield training
    datasets = _datasets(results)
    for number, dataset in enumerate(datasets, 1):
        anchor = f"c{number}"
        keys = [key for key in results.evaluators if key.dataset == dataset and key.region == ALL]
        evaluator = results.evaluators[keys[0]]
        yield Chapter(
            anchor,
            dataset,
            list(_sheets(page, anchor, [t for t in page.tables if t.dataset == dataset and not t.outside])),
            list(_parts(page, anchor, dataset, inside, [d for d in drawings if d.plot.dataset == dataset])),
            page.noise.get(dataset, ()),
            f"{evaluator.n_units:,} {evaluator.unit}",
        )
    outside = Chapter(
        "outside",
        SECTIONS["outside"],
        list(_sheets(page, "outside", [table for table in page.tables if table.outside])),
        list(_parts(page, "outside", None, ["outside"], drawings)),
    )
    if outside.sheets or outside.parts:
        yield outside


def _datasets(results: Results) -> list[str]:
    return list(dict.fromkeys(key.dataset for key in results.evaluators))


def _parts(
    page: Page, anchor: str, dataset: str | None, sections: Sequence[Section], drawings: Sequence[Drawing]
) -> Iterator[Part]:
    """The parts of a chapter that have something to show."""
    for section in sections:
        name = f"{anchor}-{section}"
        chosen = [drawing for drawing in drawings if drawing.plot.section == section]
        regions = _regions(page.results, dataset, f"{name}-table") if section == "where" and dataset else None
        gallery: dict[Key, list[GalleryRow]] = {}
        for row in page.gallery if section == "images" else ():
            if row.key.dataset == dataset:
                gallery.setdefault(row.key, []).append(row)
        if chosen or regions or gallery:
            yield Part(name, SECTIONS[section], chosen, regions, gallery)


def _sheets(page: Page, anchor: str, tables: Sequence[WideTable]) -> Iterator[Sheet]:
    """Headline tables."""
    for number, table in enumerate(tables, 1):
        rows = []
        for i, (key, values) in enumerate(zip(table.keys, table.values, strict=True)):
            cells = []
            for j, (column, value) in enumerate(zip(table.columns, values, strict=True)):
                rank = table.rank(i, j)
                tied = rank != 1 and key.name in page.as_good.get((table.dataset, column.metric.name), ())
                cells.append(Cell(value, _signs(value), rank, tied))
            rows.append(Row((key.name,), cells))
        title = f"{table.dataset}: out of distribution"
        if not table.outside:
            title = dataset_title(page.results, table.dataset, table.keys)
        yield Sheet(f"{anchor}-table{number}", title, ("method",), table.columns, rows, _legend(page.results, rows))


def _sheets_over_seeds(tables: Sequence[SeedTable], anchor: str) -> Iterator[Sheet]:
    """Means over seeds, with the intervals of the means."""
    for number, table in enumerate(tables, 1):
        rows = [
            Row(
                (key.name,),
                [
                    Cell(value, signs_over_seeds(of), table.means.rank(i, j))
                    for j, (value, of) in enumerate(zip(table.means.values[i], table.rows[i], strict=True))
                ],
            )
            for i, key in enumerate(table.means.keys)
        ]
        text = "; ".join([table.reading, "bold: best of a column; underlined: second", *table.footnotes])
        yield Sheet(
            f"{anchor}-table{number}", f"{table.title}, over seeds", ("method",), table.means.columns, rows, text
        )


def _regions(results: Results, dataset: str, anchor: str) -> Sheet | None:
    """The numbers of each method by region of its images."""
    keys = [key for key in results.evaluators if key.dataset == dataset and key.region != ALL]
    metrics = headline_columns(results, keys)
    found = {key: [find_value(results.values()[key], metric) for metric in metrics] for key in keys}
    width = results.run.options.get("boundary_width", math.nan)
    present = [region for region in REGIONS if any(key.region == region for key in keys)]
    rows = [Row((key.name, key.region), [Cell(value, _signs(value)) for value in found[key]]) for key in keys]
    if not rows or not metrics:
        return None
    regions = [f"{region}: {REGIONS[region].format(width=width)}" for region in present]
    text = "; ".join([*regions, _legend(results, rows)])
    return Sheet(anchor, f"{dataset} by region", ("method", "region"), list(map(Column, metrics)), rows, text)


def _signs(value: Value | None) -> str:
    return "".join(sorted(signs_of(value)))


def _legend(results: Results, rows: Sequence[Row]) -> str:
    """What the signs of a table mean; the table for the terminal says the same."""
    cells = [cell for _, cells in rows for cell in cells]
    parts = [legend(results, {sign for cell in cells for sign in cell.signs}, len(results.settings.chosen))]
    if any(cell.rank for cell in cells):
        parts.insert(0, "bold: best of a column; underlined: second")
    if any(cell.as_good for cell in cells):
        parts.append(f"{AS_GOOD} not told apart from the best (paired, 5 % over all pairs)")
    return "; ".join(part for part in parts if part)


def _grouped(found: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Findings by what was found, errors first: one of each, and all places that have it."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in found:
        groups.setdefault((SEVERITIES.index(finding.severity), finding.code), []).append(finding)
    return [(groups[key][0], groups[key]) for key in sorted(groups, key=lambda key: key[0])]


def _exact(value: float) -> str:
    """Every digit, for sorting and for programs; nothing where undefined."""
    return repr(float(value)) if math.isfinite(value) else ""


def _pretty(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, indent=2, ensure_ascii=False, default=str)


def _linked(source: str) -> Markup:
    """A source with links where it names an arXiv number or a DOI."""
    from markupsafe import Markup, escape

    text, end = Markup(), 0
    for found in _REFERENCE.finditer(source):
        name = found[0].rstrip(",;.")
        while name.endswith(")") and name.count(")") > name.count("("):  # the bracket around the reference
            name = name[:-1].rstrip(",;.")
        kind = str(found.lastgroup)
        place = {"arxiv": "https://arxiv.org/abs/", "doi": "https://doi.org/", "openreview": "https://"}[kind]
        address = place + quote(name if kind == "openreview" else name.partition(":")[2], safe="/:();=?.-_")
        text += escape(source[end : found.start()])
        text += Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, name)
        end = found.start() + len(name)
    return text + escape(source[end:])
