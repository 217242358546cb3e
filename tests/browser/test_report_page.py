"""The report's page in a real browser: nothing is loaded, nothing scrolls sideways, and the plot answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nasface.report.html import write_report
from tests.chromium import launched, needs_chromium, playwright, watched
from tests.searched import MACHINE, caching_in, copied

pytestmark = [pytest.mark.slow, needs_chromium]
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def report(swept_and_searched: Path, folder: Path) -> Path:
    """The page of a searched and swept run."""
    run = copied(swept_and_searched, folder, "a-run-with-a-rather-long-name-that-has-to-be-broken-on-a-phone")
    with caching_in(folder):
        return write_report(run.path, machine=MACHINE).page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as driver:
        browser = launched(driver)
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    """The page at each width; it must load without a word on the console and without any request but its own."""
    with watched(browser, WIDTHS[request.param], request.param != "desktop", 5000) as (page, asked):
        page.goto(report.as_uri())
        page.locator("#plot .mark").first.wait_for()
        yield page
        assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def data(page: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(page.locator("#sweep-data").text_content())
    return content


def network(page: Any, name: str) -> dict[str, Any]:
    return next(network for network in data(page)["networks"] if network["id"] == name)


def place(page: Any, name: str) -> tuple[float, float]:
    """The middle of a network's point in the window; the plot is scrolled to first."""
    page.locator("#plot").scroll_into_view_if_needed()
    box = page.locator(f'#plot .mark[data-network="{name}"] .dot').bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def pruned(page: Any) -> list[str]:
    return [network["id"] for network in data(page)["networks"] if not network["star"]]


def test_no_width_makes_the_page_scroll_sideways(page: Any):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for name in pruned(page):
        page.mouse.click(*place(page, name))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("details").evaluate_all("parts => parts.forEach(part => (part.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = page.locator(".scroll").evaluate_all("boxes => boxes.filter(b => b.scrollWidth > b.clientWidth).length")
    assert wide >= 1  # the table of networks scrolls in its own box
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_network_pointed_at_says_its_figures(page: Any):
    tip = page.locator("#tip")
    assert tip.is_hidden()
    for name in pruned(page):
        page.mouse.move(*place(page, name))
        figures = network(page, name)
        text = tip.inner_text()
        assert text.startswith(name)
        assert figures["asked"] in text
        assert f"{figures['edges']} of {data(page)['edges']} edges" in text
        assert f"{figures['macs'] / 1e3:.1f} k MACs" in text
        assert f"NME held-out, BN recalibrated {100 * figures['held_out_nme_recalibrated']:.2f} %" in text
        box = tip.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.viewport_size["width"]
    page.mouse.move(1, 1)
    assert tip.is_hidden()


def test_a_chosen_network_is_drawn(page: Any):
    drawing = page.locator("#drawing")
    assert "Choose a network" in drawing.inner_text()
    for name in pruned(page):
        page.mouse.click(*place(page, name))
        kept = network(page, name)["kept"]
        assert drawing.locator("figcaption strong").inner_text() == name
        assert drawing.locator(".kept path").count() == kept.count("1")
        assert drawing.locator(".gone path").count() == kept.count("0")
        assert drawing.locator("circle").count() == len(data(page)["graph"]["nodes"])
        assert page.locator("#networks tr.selected").get_attribute("data-network") == name
        assert page.locator('#plot .mark[aria-pressed="true"]').get_attribute("data-network") == name


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_a_tap_is_enough(page: Any):
    name = pruned(page)[-1]
    page.touchscreen.tap(*place(page, name))
    assert page.locator("#drawing figcaption strong").inner_text() == name
    assert page.locator("#drawing svg").is_visible()


def test_other_axes_move_the_points(page: Any):
    name = pruned(page)[1]  # neither the cheapest nor the dearest: those stand at the ends of any axis
    before = place(page, name)
    page.select_option("#axis-x", "params")
    page.wait_for_timeout(500)  # the points glide
    aside = place(page, name)
    assert aside != before
    assert any(text.startswith("parameters (k") for text in page.locator("#plot text.axis").all_text_contents())
    page.select_option("#axis-y", "nme_full_inherited")
    page.wait_for_timeout(500)
    assert "NME full, as pruned (%" in "".join(page.locator("#plot text.axis").all_text_contents())
    page.mouse.move(*place(page, name))
    figures = network(page, name)
    assert (
        f"NME full, as pruned {100 * figures['nme_full_inherited']:.2f} %, 16 images"
        in page.locator("#tip").inner_text()
    )
    x = [place(page, other)[0] for other in pruned(page)]
    by_params = [network(page, other)["params"] for other in pruned(page)]
    assert sorted(range(len(x)), key=x.__getitem__) == sorted(range(len(x)), key=by_params.__getitem__)


def test_the_front_is_of_the_networks_that_none_beats(page: Any):
    networks = [network for network in data(page)["networks"] if not network["star"]]
    cost, error = "macs", "held_out_nme_recalibrated"
    best = {
        one["id"]
        for one in networks
        if not any(
            other[cost] <= one[cost]
            and other[error] <= one[error]
            and (other[cost], other[error]) != (one[cost], one[error])
            for other in networks
        )
    }
    assert {mark.get_attribute("data-network") for mark in page.locator("#plot .mark.best").all()} == best
    assert {row.get_attribute("data-network") for row in page.locator("#networks tr.best").all()} == best


def test_the_keyboard_reaches_every_network(page: Any):
    page.locator("#axis-y").focus()
    order = sorted(data(page)["networks"], key=lambda network: (network["macs"], network["star"]))
    for figures in order:
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.get_attribute("data-network") == figures["id"]
        label = focused.get_attribute("aria-label")
        assert label.startswith(figures["id"])
        assert "MACs" in label
        assert "NME held-out" in label
        assert page.locator("#tip strong").inner_text() == figures["id"]
    page.keyboard.press("ArrowLeft")
    assert page.locator(":focus").get_attribute("data-network") == order[-2]["id"]
    page.keyboard.press("Enter")
    assert page.locator("#drawing figcaption strong").inner_text() == order[-2]["id"]
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("column", ["MACs (k)", "network"])
def test_a_heading_sorts_the_table(page: Any, column: str):
    heads = page.locator("#networks thead th").all_inner_texts()
    index = next(i for i, text in enumerate(heads) if text.startswith(column))
    button = page.locator("#networks thead th").nth(index).locator("button")

    def order() -> list[str]:
        return [row.get_attribute("data-network") for row in page.locator("#networks tbody tr").all()]

    key = {"MACs (k)": "macs", "network": "id"}[column]
    names = {network["id"]: network[key] for network in data(page)["networks"]}
    button.click()
    rising = [names[name] for name in order()]
    assert rising == sorted(rising)
    assert page.locator('#networks th[aria-sort="ascending"]').count() == 1
    button.press("Enter")
    falling = [names[name] for name in order()]
    assert falling == sorted(falling, reverse=True)
    assert page.locator('#networks th[aria-sort="descending"]').count() == 1


def test_the_table_chooses_a_network_too(page: Any):
    name = pruned(page)[0]
    page.locator(f'#networks tr[data-network="{name}"] button').click()
    assert page.locator("#drawing figcaption strong").inner_text() == name


def test_dark_and_light_differ_and_print_is_light(browser: Any, report: Path):
    colours = {}
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(report.as_uri())
        text, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        colours[scheme, media] = [sum(map(int, c.strip("rgb()").split(","))) for c in (text, paper)]
        context.close()
    assert colours["light", "screen"][0] < colours["light", "screen"][1]
    assert colours["dark", "screen"][0] > colours["dark", "screen"][1]
    assert colours["dark", "print"][0] < colours["dark", "print"][1]
