"""The report in a real browser: headless Chromium, as Debian packages it."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from report_examples import WINNER, make_data, make_history, make_partition

from hf_biotune.report import Predictions, write_report
from hf_biotune.report.predictions import picture_of

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt-get install both"
    ),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
TIMES = "\N{MULTIPLICATION SIGN}"
EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    partition = make_partition()
    history = make_history(partition, winner=WINNER)
    history.loc[3, ["state", "score"]] = ["failed", np.nan]
    history.loc[5, "state"] = "pruned"
    classes = np.arange(20) % 4
    lineage = pd.DataFrame(
        {
            "trial": [29, 12], "generation": [2, 1], "role": ["exploit", "offspring"],
            "start": ["", ""], "parents": [[12], []], "fold": [0, 0],
            "state": ["complete", "complete"], "seeds": [[684], [684]], "score": [0.931, 0.8],
        }
    )  # fmt: skip
    data = make_data(
        history=history,
        lineage=lineage,
        importances=pd.Series({"stage5": 0.7, "head": 0.3}),
        predictions=Predictions(
            ("a", "b", "c", "d"), classes, np.where(classes == 3, 0, classes), np.full(20, 0.8),
            {3: picture_of(np.full((3, 28, 28), 90, dtype=np.uint8))},
        ),
    )  # fmt: skip
    return write_report(tmp_path_factory.mktemp("report"), data)


@pytest.fixture
def page(browser, report):
    """The report, opened anew at 1280 pixels; what the browser complains about fails the test."""

    def opened(path=report, width=1280):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(path.as_uri())
        return browser

    browser.get_log("browser")
    yield opened
    assert browser.get_log("browser") == []


def all_of(driver, selector):
    return driver.find_elements("css selector", selector)


def one(driver, selector):
    (found,) = all_of(driver, selector)
    return found


def point_at(driver, svg, place):
    """Move the pointer to a place in units of a figure."""
    x, y = driver.execute_script(
        "const CENTER = {block: 'center', behavior: 'instant'};"
        "const [svg, x, y] = arguments, scale = svg.getBoundingClientRect().width"
        " / svg.viewBox.baseVal.width; svg.scrollIntoView(CENTER);"
        "const box = svg.getBoundingClientRect();"
        "return [box.left + x * scale, box.top + y * scale]",
        svg, *place,
    )  # fmt: skip
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    return one(driver, "#tip")


def places(driver, figure, kind="wide"):
    return driver.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).figures[arguments[0]]"
        "[arguments[1]]",
        figure, kind,
    )  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_is_there_and_nothing_is_wider_than_the_screen(page, width):
    driver = page(width=width)
    for name in ("winner", "search", "comparison", "mistakes", "cost", "use", "individuals"):
        assert one(driver, f"#{name}").is_displayed()
    shown = "narrow" if width < 500 else "wide"
    for name in ("blocks", "importances", "evolution", "individuals", "pareto", "comparison"):
        svg = one(driver, f"[data-figure={name}] .{shown} svg")
        assert svg.is_displayed()
        assert svg.size["width"] <= width
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    picture = one(driver, ".wrong img")
    assert driver.execute_script("return arguments[0].naturalWidth", picture) == 28


def test_the_page_asks_for_itself_alone(page, report):
    driver = page()
    driver.get_log("performance")
    driver = page()
    requests = [
        entry["message"] for entry in driver.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]  # fmt: skip
    assert all('"url":"file://' in entry or '"url":"data:' in entry for entry in requests)
    assert sum(report.as_uri() in entry for entry in requests) >= 1


def test_pointing_at_a_figure_tells_what_is_there(page):
    driver = page()
    svg = one(driver, "[data-figure=blocks] .wide svg")
    left, top, width, height = places(driver, "blocks")[6]
    tip = point_at(driver, svg, (left + width / 2, top + height / 2))
    assert tip.text.splitlines() == [
        "stage5", f"{TIMES}8 the base learning rate", "2,026,348 parameters (56.1 %)",
    ]  # fmt: skip
    svg = one(driver, "[data-figure=evolution] .wide svg")
    tip = point_at(driver, svg, places(driver, "evolution")[29])
    assert tip.text.startswith("individual 29, generation 2 (offspring)\nscore 0.931, complete")
    assert tip.text.replace(TIMES, "x").endswith("stage1 x2.5, stage2 x0.4, stage3 x1, stage5 x8")
    svg = one(driver, "[data-figure=individuals] .wide svg")
    left, top, right, bottom = places(driver, "individuals")
    tip = point_at(driver, svg, (left + 29.5 * (right - left) / 40, bottom - 1))
    assert tip.text.startswith("head frozen\nindividual 29")
    # Away from everything there is nothing to say.
    assert not point_at(driver, svg, (0, 0)).is_displayed()


def test_figures_can_be_read_by_keys_and_lead_to_the_row(page):
    driver = page()
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    svg = one(driver, "[data-figure=evolution] .wide svg")
    svg.send_keys(keys.ARROW_RIGHT, keys.ARROW_RIGHT)
    assert one(driver, "#tip").text.startswith("individual 1, generation 0")
    assert len(all_of(driver, ".mark")) == 1
    svg.send_keys(keys.ESCAPE)
    assert not one(driver, "#tip").is_displayed()
    svg.send_keys(keys.ARROW_RIGHT, keys.ENTER)
    assert driver.switch_to.active_element.get_attribute("id") == "individual-0"
    assert one(driver, "tr.found").get_attribute("id") == "individual-0"


def test_a_click_on_a_heading_sorts_and_what_has_no_value_comes_last(page):
    driver = page()
    head = one(driver, "#individuals-table thead th:nth-child(6)")
    button = head.find_element("css selector", "button")
    assert button.text == "Score"
    for direction in ("ascending", "descending"):
        driver.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", button)
        button.click()
        assert head.get_attribute("aria-sort") == direction
        scores = [
            cell.get_attribute("data-value")
            for cell in all_of(driver, "#individuals-table tbody td:nth-child(6)")
        ]
        assert scores[-1] == ""
        numbers = [float(score) for score in scores[:-1]]
        assert numbers == sorted(numbers, reverse=direction == "descending")


def test_the_individuals_can_be_filtered_by_words_and_state(page):
    driver = page()
    one(driver, "#filter input").send_keys("offspring 0.931")
    assert one(driver, "#filter output").text == "1 of 40 shown"
    shown = [row for row in all_of(driver, "#individuals-table tbody tr") if row.is_displayed()]
    assert [row.get_attribute("id") for row in shown] == ["individual-29"]
    one(driver, "#filter input").clear()
    one(driver, "#filter select").send_keys("pruned")
    assert one(driver, "#filter output").text == "1 of 40 shown"


def test_the_theme_can_be_chosen(page):
    driver = page()
    colours = []
    for _ in range(2):
        one(driver, "#theme").click()
        body = one(driver, "body")
        colours.append((body.value_of_css_property("background-color"), one(driver, "#theme").text))
    assert colours[0] != colours[1]
    assert {name for _, name in colours} == {"Light theme", "Dark theme"}


def test_nothing_that_a_stranger_named_runs(page, tmp_path):
    history = make_history(make_partition())
    history["role"] = history["state"] = EVIL
    data = make_data(
        history=history, title=EVIL, dataset_name=EVIL, metric=EVIL, facts={EVIL: EVIL}
    )
    driver = page(write_report(tmp_path, data))
    assert driver.execute_script("return window.pwned") is None
    assert EVIL in one(driver, "h1").text
