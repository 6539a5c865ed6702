"""The page in a real browser: ``pytest -m browser``, with Chromium, its driver and selenium."""

import json
import shutil

import numpy as np
import pytest

from byol_jax import atlas, gallery, probes, report
from tests.probes_test import clusters
from tests.report_test import CONFIG, PROBES, make_run, row

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium-driver"),
]


def make_browser(width):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs with curves; the first has a map."""
    top = tmp_path_factory.mktemp("browser")
    rows = [*PROBES, *(row(s, **{"train/repr_loss": 1 / (1 + s)}) for s in range(1, 100))]
    folders = [make_run(top / name, rows, config=CONFIG | {"seed": name}) for name in "ab"]
    features, labels = clusters(60, seed=0, spread=1.0)
    images = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3)).astype(np.uint8)
    measured = probes.Measured({}, features, labels, np.arange(60), labels, 4, 20)
    subject = gallery.Subject(gallery.datasets.Images(images, labels, 4), "test", {}, list("wxyz"))
    folder = folders[0] / "gallery"
    gallery.write_start(folder, measured, most=60, title="random weights")
    gallery.write_end(folder, subject, measured, step=100, most=60)
    assert atlas.METHOD in (folder / "atlas.json").read_text()
    return report.write([str(folder) for folder in folders], top / "page.html")


@pytest.fixture(params=[1280, 390])
def browser(request, page):
    opened = make_browser(request.param)
    opened.get(page.as_uri())
    yield opened
    assert not opened.get_log("browser")  # no error on the console
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"].endswith("willBeSent")]
    assert all(url.startswith(("file:", "data:")) for url in requests), requests
    opened.quit()


def test_nothing_is_wider_than_the_window(browser):
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return innerWidth")


def move(browser, selector, across=0.5, down=0.5):
    box = browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
        "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
        selector,
    )
    place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")


def test_a_curve_tells_its_values_under_the_pointer_and_to_the_keyboard(browser):
    move(browser, '[data-chart="loss"] .u-over')
    tip = browser.find_element("css selector", '[data-chart="loss"] .tip')
    assert "step" in tip.text and "a · total" in tip.text and "3" in tip.text
    place = browser.find_element("css selector", '[data-chart="loss"]')
    place.send_keys(webdriver.Keys.END)
    assert browser.find_element("id", "spoken").get_attribute("textContent").startswith("step 100")


def test_the_legend_hides_and_shows_a_run(browser):
    button = browser.find_element("css selector", "#runs-legend button")
    for pressed in ("false", "true"):
        browser.execute_script("arguments[0].click()", button)
        assert button.get_attribute("aria-pressed") == pressed
        move(browser, '[data-chart="loss"] .u-over', across=0.3 if pressed == "true" else 0.6)
        tip = browser.find_element("css selector", '[data-chart="loss"] .tip').text
        assert ("a · total" in tip) == (pressed == "true") and "b · total" in tip


def test_the_theme_goes_round(browser):
    seen = []
    for _ in range(3):
        browser.find_element("id", "theme").click()
        color = "return getComputedStyle(document.body).backgroundColor"
        theme = browser.execute_script("return document.documentElement.dataset.theme")
        seen.append((theme, browser.execute_script(color)))
    assert {theme for theme, _ in seen} == {"auto", "light", "dark"}
    assert dict(seen)["light"] != dict(seen)["dark"]


def test_a_point_of_the_map_shows_its_image(browser):
    tip = browser.find_element("css selector", '[data-when="now"] .tip')
    for across in np.linspace(0, 1, 12):
        for down in np.linspace(0, 1, 12):
            move(browser, '[data-when="now"] .u-over', across, down)
            if tip.is_displayed():
                assert "image" in tip.text
                return
    pytest.fail("no point was found under the pointer")
