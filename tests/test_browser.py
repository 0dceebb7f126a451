"""The page in a real browser: quiet, offline, sortable, and readable on a phone, in the dark and on paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_page import HOSTILE, toy_page, toy_results

from calbench.report.page import render_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for found in map(shutil.which, names) if found), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(toy_page(toy_results())), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "hostile.html"
    results = toy_results((HOSTILE, "b", "c"), (f"set {HOSTILE}", "x" * 300))
    page = toy_page(results, HOSTILE)
    path.write_text(render_page(replace(page, command="calbench report " + "y" * 300)), encoding="utf-8")
    return path


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file, and at the end of the test asserts that it asked for nothing else, said nothing and did nothing odd."""
    contexts, asked, said, files = [], [], [], set()

    def opened(path: Path, *, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        files.add(path.as_uri())
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append((message.type, message.text)))
        page.on("pageerror", lambda error: said.append(("error", str(error))))
        page.on("dialog", lambda dialog: (said.append(("dialog", dialog.message)), dialog.dismiss()))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith("data:")] == sorted(files)
    assert said == []


def first_table(page: Any) -> Any:
    return page.locator("table.sortable").first


def column(page: Any, metric: str) -> list[float]:
    """The values of a column of the first table, from top to bottom."""
    return [
        float(text) if text else float("nan")
        for text in first_table(page).evaluate(
            """(table, metric) => {
                const place = table.querySelector(`th[data-metric="${metric}"]`).cellIndex;
                return [...table.tBodies[0].rows].map((row) => row.cells[place].dataset.value);
            }""",
            metric,
        )
    ]


def heading(page: Any, metric: str) -> Any:
    return first_table(page).locator(f'th[data-metric="{metric}"]')


def test_a_click_sorts_by_the_exact_value_best_first_and_a_second_click_turns_it_round(
    plain_page: Path, open_page: Open
) -> None:
    page = open_page(plain_page)
    values = column(page, "brier")
    assert values not in (sorted(values), sorted(values, reverse=True))
    assert heading(page, "brier").get_attribute("aria-sort") == "none"
    heading(page, "brier").locator("button").click()
    assert column(page, "brier") == sorted(values)
    assert heading(page, "brier").get_attribute("aria-sort") == "ascending"
    heading(page, "brier").locator("button").click()
    assert column(page, "brier") == sorted(values, reverse=True)
    assert heading(page, "brier").get_attribute("aria-sort") == "descending"
    assert first_table(page).locator("th[aria-sort=descending], th[aria-sort=ascending]").count() == 1


def test_the_keyboard_sorts(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    values = column(page, "ece")
    assert values != sorted(values)
    first_table(page).locator("th[data-kind=text] button").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('th').dataset.metric") == "ece"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert column(page, "ece") == sorted(values)
    page.keyboard.press("Space")
    assert column(page, "ece") == sorted(values, reverse=True)


def test_names_sort_as_text_and_higher_is_better_sorts_downwards_first(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    names = "[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => row.cells[0].textContent)"
    first_table(page).locator("th[data-kind=text] button").click()
    assert page.evaluate(names) == ["dull", "right", "sharp"]
    first = "document.querySelector('th[data-metric=ood_auroc]')"
    page.locator("th[data-metric=ood_auroc] button").first.click()
    assert page.evaluate(f"{first}.getAttribute('aria-sort')") == "descending"


def test_undefined_values_stay_last_both_ways(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    values = column(page, "ece")
    first_table(page).evaluate("(t) => { t.tBodies[0].rows[0].querySelector('td').dataset.value = ''; }")
    rest = sorted(values[1:])
    for expected in (rest, rest[::-1]):
        heading(page, "ece").locator("button").click()
        assert column(page, "ece")[:2] == expected
        assert str(column(page, "ece")[2]) == "nan"


def test_every_picture_loads_and_figures_have_a_size(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths == [40] * 8
    sizes = page.evaluate("[...document.querySelectorAll('figure svg')].map((f) => f.getBoundingClientRect().width)")
    assert len(sizes) == 5
    assert min(sizes) > 300


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("which", ["plain_page", "hostile_page"])
def test_a_phone_scrolls_tables_not_the_page(
    which: str, width: int, request: pytest.FixtureRequest, open_page: Open
) -> None:
    page = open_page(request.getfixturevalue(which), width=width)
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".scroll").first
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth")
    assert page.locator(".hint").first.is_visible()
    left = "(box) => { box.scrollLeft = 200; return box.querySelector('tbody th').getBoundingClientRect().left; }"
    assert box.evaluate(left) == pytest.approx(box.evaluate("(box) => box.getBoundingClientRect().left"), abs=2)


def test_a_wide_window_needs_no_hint(plain_page: Path, open_page: Open) -> None:
    assert open_page(plain_page, width=1600).locator(".hint:visible").count() == 0


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two CSS colours, as WCAG 2 defines it (1 to 21)."""

    def luminance(colour: str) -> float:
        parts = [float(number) / 255 for number in re.findall(r"[\d.]+", colour)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


PAINT = """(element) => {
    let node = element;
    while (node.parentElement && getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
    const style = getComputedStyle(element);
    return [element instanceof SVGElement ? style.fill : style.color, getComputedStyle(node).backgroundColor];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_either_scheme(scheme: str, plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page, color_scheme=scheme)
    dark = {"light": False, "dark": True}[scheme]
    background = page.locator("body").evaluate(PAINT)[1]
    assert (contrast(background, "rgb(0, 0, 0)") < 3) == dark
    for selector in (
        "body", "td .value", "td small", "td .sign", "th[scope=row]", ".legend", ".lead", ".severity", ".where", "nav a",
        "figcaption", "figure svg text", "cite a", ".worst .end", ".best .end", "dd .how", "pre", ".amounts",
    ):  # fmt: skip
        text, behind = page.locator(selector).first.evaluate(PAINT)
        assert contrast(text, behind) >= 4.5, selector


def test_paper_shows_what_is_folded_and_no_controls(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page, width=794, color_scheme="dark")
    folded = page.locator("section.chapter").nth(1).locator("details.part").first
    assert folded.get_attribute("open") is None
    assert not folded.locator("svg").is_visible()
    page.emulate_media(media="print")
    assert folded.locator("svg").is_visible()
    assert folded.locator("svg").bounding_box()["height"] > 100
    assert not page.locator("nav").is_visible()
    assert not page.locator("[data-copy]").is_visible()
    text, behind = page.locator("td .value").first.evaluate(PAINT)
    assert contrast(behind, "rgb(255, 255, 255)") < 1.1  # white paper, whatever the screen is
    assert contrast(text, behind) > 7
    wider = "[...document.querySelectorAll('table')].filter((t) => t.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(wider) == 0
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.get_attribute("open") is None


def test_a_link_of_the_contents_unfolds_what_it_leads_to(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    folded = page.locator("section.chapter").nth(1).locator("details.part").first
    name = folded.get_attribute("id")
    assert folded.get_attribute("open") is None
    page.locator(f'nav a[href="#{name}"]').click()
    page.wait_for_function(f"document.getElementById('{name}').open")
    assert folded.locator("svg").is_visible()


def test_the_command_can_be_copied(plain_page: Path, open_page: Open) -> None:
    page = open_page(plain_page)
    page.locator("[data-copy]").click()
    assert page.evaluate("getSelection().toString()") == "calbench report 'runs/plain' -o out"


def test_names_of_files_run_nothing(hostile_page: Path, open_page: Open) -> None:
    page = open_page(hostile_page)
    assert page.title() == HOSTILE
    assert first_table(page).locator("tbody th").first.text_content() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    page.wait_for_timeout(100)  # for a dialog or an error to come; open_page sees them
