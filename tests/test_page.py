"""The page: its numbers are those of summary.json, it is well-formed, and no name can write into it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calbench import Results, Run, Sample, Settings, collect
from calbench.noise import as_good, noise
from calbench.report.gallery import GalleryRow
from calbench.report.page import Page, render_page, themed
from calbench.report.page import _linked as linked
from calbench.report.paper import wide_tables
from calbench.report.plots import Plot, Section
from calbench.report.style import METHOD_COLOURS, PAPER, new_figure, plain, rendered, tidy
from calbench.results import Key
from calbench.statistics import Statistics
from calbench.statistics.bundle import ALL
from calbench.synthetic import samples

HOSTILE = '<script>alert("1")</script> & "><img src=x onerror=alert(2)> $x$ #26313d id="patch_1"'
VOID = {"meta", "link", "img", "br"}


@cache
def rows(sharpness: float, n_images: int = 40) -> Statistics:
    return only(collect(samples(n_images, sharpness=sharpness), scores=(), regions=True))


def only(run: Run) -> Statistics:
    return next(iter(run.combinations.values()))


@cache
def blank() -> Statistics:
    """Pictures with nothing to find, on which a method sees something."""
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 90, (9, 14), np.uint8) for _ in range(12))
    return only(
        collect(
            [Sample(f"i{n}", p, np.zeros(p.shape, np.uint8)) for n, p in enumerate(pictures)], scores=(), regions=False
        )
    )


def toy_results(names: Sequence[str] = ("sharp", "right", "dull"), datasets: Sequence[str] = ("one", "two")) -> Results:
    """Methods of sharpness 2.5, 1 and 0.4 on each data set, the first also on an out-of-distribution set."""
    sharpness = (2.5, 1.0, 0.4)
    combinations = {(d, name): rows(s) for d in datasets for name, s in zip(names, sharpness, strict=True)}
    run = Run(combinations, {"boundary_width": 5.0}, ("a note on the run",), {("blank", names[0]): blank()})
    metrics = ("ece", "ece_fg", "brier", "mae", "gap", "mce", "ood_entropy", "ood_auroc")
    return Results(run, Settings(metrics=metrics, n_boot=60))


def figure(title: str, name: str) -> str:
    chart = new_figure(3.5, 2.0)
    ax = tidy(chart.subplots())
    ax.plot([0, 1], [0, 1], "o-", color=METHOD_COLOURS[0])
    ax.fill_between([0, 1], [0, 1], color=PAPER)
    ax.imshow(np.eye(3), extent=(0, 1, 0, 1), alpha=0.3)
    ax.text(0.1, 0.5, plain(title), clip_on=True).set_in_layout(False)
    return rendered(chart, ["svg"], salt=name)["svg"].decode()


def picture(seed: int) -> str:
    array = np.random.default_rng(seed).integers(0, 255, (30, 40), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def toy_page(results: Results, text: str = "plain") -> Page:
    """A page with everything on it; `text` is the title, and in the names of images, captions, folders and notes."""
    tables = wide_tables(results)
    methods = {t.dataset: {k.name: results.evaluators[k] for k in t.keys} for t in tables if not t.outside}
    inside = [table for table in tables if not table.outside]
    sections: list[tuple[Section, str]] = [
        ("reliability", inside[0].dataset), ("reliability", inside[1].dataset), ("where", inside[1].dataset),
        ("outside", "blank"), ("methods", inside[1].dataset),
    ]  # fmt: skip
    plots = [
        Plot(f"plot-{i}", section, dataset, f"{text} {i}", f"what {text} shows", lambda: new_figure())
        for i, (section, dataset) in enumerate(sections)
    ]
    keys = [key for key in results.evaluators if key.region == ALL][:2]
    return Page(
        title=text,
        results=results,
        tables=tables,
        noise={dataset: noise(e, results.settings.chosen) for dataset, e in methods.items()},
        as_good={(t.dataset, m.name): as_good(methods[t.dataset], m) for t in inside for m in t.metrics if m.interval}
        | {(inside[0].dataset, "ece"): frozenset(methods[inside[0].dataset])},
        figures=[(plot, figure(plot.title, plot.name)) for plot in plots],
        gallery=[
            GalleryRow(
                key, f"{text}.{end}", end, "brier", value, {"mask": picture(1), "prediction": picture(2)}, (40, 30)
            )
            for key in keys
            for end, value in (("worst", 0.4), ("best", 1 / 30))
        ],
        notes=(f"no photographs of {text}",),
        sources={f"runs/{text}": {"n_boot": 60, "pred": text}},
        command=f"calbench report 'runs/{text}' -o out",
    )


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element] = []
        self.pieces: list[str | Element] = []

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""

    @property
    def text(self) -> str:
        return "".join(piece if isinstance(piece, str) else piece.text for piece in self.pieces)

    def all(self, *tags: str, **wanted: str) -> list[Element]:
        """Elements below of these tags (any without), in order, whose attributes are these; `class_` holds a word."""
        found = []
        for child in self.children:
            words = (child.attributes.get("class") or "").split()
            named = {key.replace("_", "-"): value for key, value in wanted.items() if key != "class_"}
            if (
                (not tags or child.tag in tags)
                and all(child.attributes.get(key) == value for key, value in named.items())
                and ("class_" not in wanted or wanted["class_"] in words)
            ):
                found.append(child)
            found += child.all(*tags, **wanted)
        return found


class Tree(HTMLParser):
    """Reads a page into elements, and refuses tags that are left open or closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.current = Element("", {}, None)
        self.feed(text)
        self.close()
        assert self.current is self.root, f"<{self.current.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is given twice"
        element = Element(tag, dict(attrs), self.current)
        self.current.children.append(element)
        self.current.pieces.append(element)
        if tag not in VOID:
            self.current = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.current.tag, f"</{tag}> closes <{self.current.tag}>"
        assert self.current.parent is not None
        self.current = self.current.parent

    def handle_data(self, data: str) -> None:
        self.current.pieces.append(data)


@pytest.fixture(scope="module")
def results() -> Results:
    return toy_results()


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return toy_page(results)


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render_page(page)


@pytest.fixture(scope="module")
def tree(html: str) -> Element:
    return Tree(html).root


@pytest.fixture(scope="module")
def hostile() -> tuple[Page, Element]:
    page = toy_page(toy_results((HOSTILE, "b", "c"), (f"set {HOSTILE}", "two")), HOSTILE)
    return page, Tree(render_page(page)).root


def records(results: Results) -> dict[tuple[str, ...], dict[str, Any]]:
    """The numbers of summary.json by data set, method, region, metric and average."""
    document = json.loads(json.dumps(results.to_json(), allow_nan=False))
    return {
        tuple(record[name] for name in ("dataset", "method", "region", "metric", "average")): record
        for record in document["results"]
    }


def assert_shows(cell: Element, record: dict[str, Any]) -> None:
    """A cell of a table is this number of summary.json, in full and as it is printed."""
    assert float(cell["data-value"]) == record["value"]
    printed = cell.all("span", class_="value")[0].text
    assert printed == f"{record['value']:.4f}"
    limits = [None if cell[name] == "" else float(cell[name]) for name in ("data-low", "data-high")]
    assert limits == [record["low"], record["high"]]
    shown = [small.text for small in cell.all("small")]
    assert shown == ([] if record["low"] is None else [f"[{record['low']:.4f}, {record['high']:.4f}]"])


def test_every_number_of_the_headline_tables_is_that_of_the_summary(page: Page, tree: Element) -> None:
    known = records(page.results)
    sheets = tree.all("table", class_="sortable")
    headline = [sheet for sheet in sheets if len(sheet.all("thead")[0].all("th", data_kind="text")) == 1]
    compared = Counter[str]()
    for table, sheet in zip(page.tables, headline, strict=True):
        assert table.dataset in sheet.all("caption")[0].text
        metrics = [th["data-metric"] for th in sheet.all("th", data_kind="number")]
        assert metrics == [metric.name for metric in table.metrics]
        lines = sheet.all("tbody")[0].all("tr")
        assert [tr.all("th")[0].text for tr in lines] == [key.name for key in table.keys]
        for i, (key, tr) in enumerate(zip(table.keys, lines, strict=True)):
            for j, (metric, cell) in enumerate(zip(table.metrics, tr.all("td"), strict=True)):
                if table.values[i][j] is None:
                    assert (cell["data-value"], cell.text) == ("", "–")
                    continue
                assert_shows(cell, known[key.dataset, key.method, ALL, metric.name, metric.average])
                classes = {"best": 1, "second": 2}.get(cell.attributes.get("class") or "", 0)
                assert classes == table.rank(i, j)
                tied = key.name in page.as_good.get((table.dataset, metric.name), ()) and table.rank(i, j) != 1
                assert [sign.text for sign in cell.all("span", class_="tie")] == ["="] * tied
                compared[table.dataset] += 1
                compared["tied"] += tied
    assert compared["one"] == compared["two"] == 18
    assert compared["blank"] == 3  # detection is against each data set
    assert compared["tied"] > 0
    assert "= not told apart from the best" in tree.all("section", class_="chapter")[0].text


def test_regions_are_in_a_table_of_their_own(page: Page, tree: Element) -> None:
    known = records(page.results)
    sheet = next(s for s in tree.all("table", class_="sortable") if s.all("caption")[0].text == "two by region")
    metrics = [th["data-metric"] for th in sheet.all("th", data_kind="number")]
    lines = sheet.all("tbody")[0].all("tr")
    assert len(lines) == 3 * 7
    for tr in lines:
        method, region = (th.text for th in tr.all("th"))
        for metric, cell in zip(metrics, tr.all("td"), strict=True):
            assert_shows(cell, known["two", method, region, metric, "pixels"])
    assert "boundary: within 5 pixels of a pixel of another class" in tree.text


def test_signs_are_explained_below_the_table() -> None:
    few = Results(Run({("one", "right"): rows(1.0)}), Settings(metrics=("ece",), n_boot=60))
    tree = Tree(render_page(Page("t", few, wide_tables(few), {}, {}, (), (), (), {}, ""))).root
    signs = {sign.text for sign in tree.all("span", class_="sign")}
    assert "°" in signs  # the calibrated method on 40 images
    assert any("° not distinguishable from calibrated" in legend.text for legend in tree.all("p", class_="legend"))


def test_what_is_undefined_says_so_and_has_nothing_to_sort_by() -> None:
    empty = only(collect([Sample("a", np.full((3, 4), 7, np.uint8), np.zeros((3, 4), np.uint8))], scores=()))
    results = Results(Run({("d", "m"): empty}), Settings(metrics=("auroc",), n_boot=0))
    page = Page("t", results, wide_tables(results), {}, {}, (), (), (), {}, "")
    cell = Tree(render_page(page)).root.all("tbody")[0].all("td")[0]
    assert math.isnan(next(iter(results.values().values()))[0].value)
    assert (cell["data-value"], cell.text) == ("", "undefined")


def test_noise_is_said_in_words_with_its_range(page: Page, tree: Element) -> None:
    chapters = tree.all("section", class_="chapter")
    for dataset, chapter in zip(("one", "two"), chapters, strict=False):
        told = chapter.all("div", class_="noise")[0]
        words = " ".join(told.all("p")[0].text.split())
        amounts = [f"{entry.median:.4f} in {entry.metric}" for entry in page.noise[dataset]]
        assert (
            words
            == f"Typically, differences between two methods on {dataset} (40 images) below {', '.join(amounts)} are noise."
        )
        shown = [float(b["data-value"]) for b in told.all("b")]
        assert shown == [entry.median for entry in page.noise[dataset]]
        table = [[cell.text for cell in tr.all("th", "td")] for tr in told.all("tbody")[0].all("tr")]
        assert table == [
            [n.metric, f"{n.median:.4f}", f"{n.least:.4f}", f"{n.most:.4f}", str(n.n_pairs)]
            for n in page.noise[dataset]
        ]


def test_findings_notes_settings_versions_and_command_are_on_the_page(page: Page, tree: Element) -> None:
    document = page.results.to_json()
    text = " ".join(tree.all("section", class_="findings")[0].text.split())
    assert document["findings"]
    for finding in document["findings"]:
        assert " ".join(finding["message"].split()) in text
        assert " ".join(finding["remedy"].split()) in text
    for note in [*page.notes, *document["notes"]]:
        assert note in text
    made = tree.all("section", id="made")[0]
    assert made.all("code", id="command")[0].text == page.command
    configurations = [json.loads(details.all("pre")[0].text) for details in made.all("details")]
    assert configurations == list(page.sources.values())
    for name, number in document["versions"].items():
        assert f"{name} {number}" in made.text


def test_every_definition_is_there_with_its_reference(page: Page, tree: Element) -> None:
    entries = {}
    for entry in tree.all("dl", class_="definitions")[0].all("div"):
        entries[entry.all("dt")[0].text.split()[0]] = entry.all("dd")[0]
    document = page.results.to_json()["definitions"]
    assert entries.keys() == document.keys()
    for name, definition in document.items():
        assert entries[name].text.startswith(definition["definition"])
        assert entries[name].all("cite")[0].text == definition["source"]
    assert "Pooled over pixels; interval of a norm; bins=15." in entries["ece"].text
    assert entries["ece"].all("a")[0]["href"] == "https://arxiv.org/abs/1706.04599"


def test_links_of_references_survive_brackets_and_escape_the_rest() -> None:
    source = "Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2); A & B (arXiv:1909.10155), section 4"
    root = Tree(str(linked(source))).root
    assert root.text == source
    assert [a["href"] for a in root.all("a")] == [
        "https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2",
        "https://arxiv.org/abs/1909.10155",
    ]
    assert "<0001" not in linked(source)


def test_figures_are_in_the_chapter_of_their_data_set_and_only_the_first_is_unfolded(page: Page, tree: Element) -> None:
    chapters = {c.all("h2")[0].text: c for c in tree.all("section", class_="chapter")}
    titles = {
        name: [figure.all("figcaption")[0].all("strong")[0].text for figure in chapter.all("figure")]
        for name, chapter in chapters.items()
    }
    assert titles["one"] == ["plain 0"]
    assert titles["two"] == ["plain 1", "plain 2", "plain 4"]
    assert titles["Out of distribution"] == ["plain 3"]
    parts = {name: chapter.all("details", class_="part") for name, chapter in chapters.items()}
    assert parts["one"]
    assert all("open" in part.attributes for part in parts["one"])
    assert parts["two"]
    assert not any("open" in part.attributes for part in parts["two"])


def test_the_gallery_has_each_picture_with_its_value_and_a_text(page: Page, tree: Element) -> None:
    shown = tree.all("div", class_="row")
    assert [float(row.all("b")[0]["data-value"]) for row in shown] == [row.value for row in page.gallery]
    for given, row in zip(page.gallery, shown, strict=True):
        assert [(img["src"], img["alt"]) for img in row.all("img")] == [
            (address, f"{heading} of {given.image}") for heading, address in given.pictures.items()
        ]
        assert given.key.name in row.parent.all("h4")[0].text  # type: ignore[union-attr]


def assert_sound(tree: Element) -> None:
    """Identifiers are unique, links inside lead somewhere, nothing is fetched, headings skip no level."""
    everything = tree.all()
    ids = [element["id"] for element in everything if "id" in element.attributes]
    assert len(ids) == len(set(ids)) > 20
    for element in everything:
        assert not any(name.startswith("on") for name in element.attributes)
        for name in ("href", "src", "xlink:href"):
            address = element.attributes.get(name)
            if address is None or address.startswith("data:"):
                continue
            if address.startswith("#"):
                assert address[1:] in ids
            else:
                assert element.tag == "a"
                assert re.match(r"https://(arxiv\.org|doi\.org|openreview\.net)/", address)
        for reference in re.findall(r"url\(#([^)]+)\)", " ".join(str(v) for v in element.attributes.values())):
            assert reference in ids
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
    levels = [int(element.tag[1]) for element in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(th["scope"] in ("col", "row") for th in tree.all("th"))
    assert all(img["alt"] for img in tree.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in tree.all("svg"))
    assert all(len(table.all("caption")) == 1 for table in tree.all("table"))


def test_the_page_is_sound(tree: Element) -> None:
    assert_sound(tree)
    assert tree.all("html")[0]["lang"] == "en"


def test_no_name_can_write_into_the_page(hostile: tuple[Page, Element]) -> None:
    page, tree = hostile
    assert_sound(tree)
    assert len(tree.all("script")) == 1
    assert len(tree.all("img")) == sum(len(row.pictures) for row in page.gallery)
    assert tree.all("h1")[0].text == tree.all("title")[0].text == HOSTILE
    assert tree.all("code", id="command")[0].text == page.command
    assert tree.all("th", data_value=HOSTILE, scope="row")
    texts = [text.text for text in tree.all("figure")[0].all("text")]
    assert f"{HOSTILE} 0" in texts  # of the figure itself, letter for letter
    assert tree.all("svg")[0]["aria-label"] == f"{HOSTILE} 0"


def test_the_policy_lets_no_script_run_but_the_page_s_own(html: str, tree: Element) -> None:
    policy = next(meta["content"] for meta in tree.all("meta") if "http-equiv" in meta.attributes)
    script = html.partition("<script>")[2].partition("</script>")[0]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{own}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_figures_follow_the_theme_and_keep_apart(page: Page) -> None:
    original = page.figures[0][1]
    assert "<metadata>" in original
    assert "#26313d" in original
    one, width = themed(original, "a-", "A")
    two, _ = themed(original, "b-", "B")
    assert width == round(3.5 * 96)
    for part in ("metadata", "<style", "<?xml", "#26313d", "#ffffff", "xmlns"):
        assert part not in one.partition("<text")[0]
    assert "width" not in one.partition(">")[0]
    assert "var(--ink)" in one
    assert "var(--card)" in one
    assert METHOD_COLOURS[0].lower() in one
    assert len(one) < 0.6 * len(original)
    pictures = [re.findall(r'href="(data:[^"]+)"', text) for text in (original, one)]
    assert len(pictures[0]) == 1
    assert ["".join(picture.split()) for picture in pictures[1]] == [
        "".join(picture.split()) for picture in pictures[0]
    ]
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_colours_and_identifiers_in_names_stay() -> None:
    text, _ = themed(figure(HOSTILE, "n"), "f-", HOSTILE)
    assert HOSTILE in [element.text for element in Tree(text).root.all("text")]


def test_a_page_of_many_figures_and_pictures_stays_small(page: Page) -> None:
    plots, svg = [entry[0] for entry in page.figures], page.figures[0][1]
    padding = 25_000 // len("M 0 0 ") + 1
    svg = svg.replace('<path d="', '<path d="' + "M 0 0\n" * padding, 1)
    row = page.gallery[0]
    pictures = {str(i): "data:image/png;base64," + "A" * 5_000 for i in range(5)}
    many = replace(
        page,
        figures=[(replace(plots[0], name=f"p{i}"), svg) for i in range(150)],
        gallery=[replace(row, pictures=pictures)] * 240,
    )
    size = len(render_page(many).encode())
    assert 9e6 < size < 15e6


def test_equal_results_give_equal_pages(html: str) -> None:
    assert render_page(toy_page(toy_results())) == html


def test_a_method_with_a_calibrator_is_shown_under_both_names(results: Results) -> None:
    statistics = rows(1.0)
    through = replace(statistics, conventions={**statistics.conventions, "calibrator": "temperature"})
    calibrated = {("one", "right", "temperature"): through}
    both = Results(replace(results.run, calibrated=calibrated), results.settings)
    tree = Tree(render_page(toy_page(both))).root
    name = Key("one", "right", calibrator="temperature").name
    assert name in [th.text for th in tree.all("th", scope="row", class_="label")]
