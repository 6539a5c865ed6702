"""The page in a real browser: ``make test-browser``, with Chromium, its driver and selenium."""

import shutil
import threading

import numpy as np
import pytest

from byol_jax.report import cli, live_server
from byol_jax.training import online_eval
from byol_jax.visualize import embedding_map, gallery
from tests.support.browsers import Keys, find, make_browser, move, press, read_requests, spoken
from tests.support.pages import CONFIG, PROBES, make_run, row
from tests.training.online_eval_test import clusters

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium-driver"),
]
LOSS = '[data-chart="loss"]'
MAP = '[data-when="now"]'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs with curves; the first has a map."""
    top = tmp_path_factory.mktemp("browser")
    series = [{"train/repr_loss": 1 / (1 + s), "train/tau": 0.99} for s in range(1, 100)]
    rows = [*PROBES, *(row(s, **values) for s, values in enumerate(series, start=1))]
    folders = [make_run(top / name, rows, config=CONFIG | {"seed": name}) for name in "ab"]
    features, labels = clusters(60, seed=0, spread=1.0)
    images = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3)).astype(np.uint8)
    measured = online_eval.Measured({}, features, labels, np.arange(60), labels, 4, 20)
    subject = gallery.GalleryData(
        gallery.datasets.ArrayDataset(images, labels, 4), "test", {}, list("wxyz")
    )
    folder = folders[0] / "gallery"
    gallery.write_start(folder, measured, most=60, title="random weights")
    gallery.write_end(folder, subject, measured, step=100, most=60)
    assert embedding_map.METHOD in (folder / "atlas.json").read_text()
    return cli.write([str(folder) for folder in folders], top / "page.html")


@pytest.fixture(scope="module", params=[1280, 390])
def window(request, tmp_path_factory):
    with make_browser(request.param, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(window, page):
    """A window with the page, which has no error and asks for nothing but itself."""
    window.get(page.as_uri())
    window.execute_script("localStorage.clear(); location.reload()")
    read_requests(window)
    window.get(page.as_uri())
    yield window
    assert not window.get_log("browser")
    requests = read_requests(window)
    assert requests[0] == page.as_uri()
    assert all(url.startswith("data:") or url == page.as_uri() for url in requests), requests


def test_nothing_is_wider_than_the_window(browser):
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return innerWidth")


def test_a_phone_folds_what_matters_less_and_unfolds_it_in_full_width(browser):
    is_phone = browser.execute_script("return innerWidth") < 720
    fold = find(browser, "#curves details.fold")
    assert (fold.get_attribute("open") is None) == is_phone
    if is_phone:
        find(browser, "#curves details.fold > summary").click()
    widths = (
        "return [...document.querySelectorAll('#curves [data-chart]')].map("
        "p => [p.clientWidth, p.querySelector('.uplot').clientWidth])"
    )
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    found = browser.execute_script(widths)
    assert len(found) > 2 and all(place == plot > 200 for place, plot in found), found


def test_every_picture_is_drawn(browser):
    """Canvases hold more than one color, and images have loaded."""
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('canvas')].filter(c => c.offsetParent).map(c => {"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(new Uint32Array(d.buffer)).size })"
    )
    assert len(drawn) >= 5 and min(drawn) > 2
    widths = "return [...document.querySelectorAll('img')].map(i => i.naturalWidth)"
    assert min(browser.execute_script(widths)) > 0


def test_a_curve_tells_its_values_under_the_pointer(browser):
    move(browser, f"{LOSS} .u-over")
    tip = find(browser, f"{LOSS} .tip")
    assert "step" in tip.text and "a · total" in tip.text and "3" in tip.text
    line = "return document.querySelector(arguments[0]).style.transform"
    places = [
        browser.execute_script(line, f'[data-chart="{name}"] .u-cursor-x')
        for name in ("loss", "feature_std")
    ]
    assert places[0] and places[0] == places[1]  # one axis of steps for all


def test_a_finger_is_a_pointer_too(browser):
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    move(browser, f"{LOSS} .u-over", across=0.0)
    place = browser.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return {x: b.left + b.width / 2, y: b.top + b.height / 2}",
        f"{LOSS} .u-over",
    )
    for kind, points in (("touchStart", [place]), ("touchEnd", [])):
        event = {"type": kind, "touchPoints": points}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
    browser.execute_async_script("setTimeout(arguments[0], 400)")
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert "a · total" in find(browser, f"{LOSS} .tip").text


def test_a_curve_tells_its_values_to_the_keyboard(browser):
    place = find(browser, LOSS)
    place.send_keys(Keys.END)
    assert spoken(browser).startswith("step 100")
    place.send_keys(Keys.ARROW_LEFT)
    assert spoken(browser).startswith("step 99,") and "b · BYOL" in spoken(browser)
    place.send_keys(Keys.ESCAPE)
    assert not find(browser, f"{LOSS} .tip").is_displayed()


def test_everything_can_be_reached_and_pressed_without_a_pointer(browser):
    reached = set()
    for _ in range(80):
        press(browser, Keys.TAB)
        element = browser.switch_to.active_element
        if element.tag_name == "body":
            break
        reached.add(
            element.get_attribute("id")
            or element.get_attribute("data-chart")
            or element.get_attribute("data-when")
            or element.get_attribute("class")
            or element.tag_name
        )
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        assert browser.execute_script(outline) != "none"
    assert {"theme", "a", "key", "loss", "feature_std", "summary", "now", "start"} <= reached
    button = find(browser, "#runs-legend button")
    browser.execute_script("arguments[0].focus()", button)
    press(browser, Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"


def test_every_button_and_picture_has_a_name(browser):
    nameless = browser.execute_script(
        "const name = e => e.getAttribute('aria-label') || e.textContent.trim();"
        "return [...document.querySelectorAll('button, [role=application], [role=group], nav')]"
        ".filter(e => !name(e)).length"
        " + [...document.querySelectorAll('img:not([hidden])')].filter(i => !i.alt).length"
    )
    assert nameless == 0


def test_the_legend_hides_and_shows_a_run(browser):
    button = find(browser, "#runs-legend button")
    for pressed in ("false", "true"):
        browser.execute_script("arguments[0].click()", button)
        assert button.get_attribute("aria-pressed") == pressed
        move(browser, f"{LOSS} .u-over", across=0.3 if pressed == "true" else 0.6)
        tip = find(browser, f"{LOSS} .tip").text
        assert ("a · total" in tip) == (pressed == "true") and "b · total" in tip


def test_a_chart_has_a_legend_of_its_own(browser):
    place = "#curves figure .legend button"
    browser.execute_script("document.querySelector(arguments[0]).click()", place)
    move(browser, f"{LOSS} .u-over")
    tip = find(browser, f"{LOSS} .tip").text
    assert "total" not in tip and "a · BYOL" in tip


def background(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_the_theme_goes_round_and_is_kept(browser, page):
    seen = {}
    for _ in range(3):
        browser.execute_script("document.getElementById('theme').click()")
        theme = browser.execute_script("return document.documentElement.dataset.theme")
        seen[theme] = background(browser)
    assert set(seen) == {"auto", "light", "dark"} and seen["light"] != seen["dark"]
    browser.execute_script("document.getElementById('theme').click()")
    browser.get(page.as_uri())
    assert background(browser) == seen["light"] and find(browser, "#theme").text == "Theme: light"


def test_the_theme_follows_the_system(browser):
    seen = []
    for value in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": value}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        seen.append(background(browser))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen[0] != seen[1]


def test_paper_is_light_and_cuts_nothing_off(browser):
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    browser.execute_script(
        "addEventListener('beforeprint', () => window.printed = document.documentElement.dataset"
        ".theme)"
    )
    assert browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert browser.execute_script("return window.printed") == "light"
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cut = browser.execute_script(
        "return [...document.querySelectorAll('.plot canvas, .scroll table')].filter(e => "
        "e.getBoundingClientRect().right > e.closest('.card').getBoundingClientRect().right)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert not cut


def test_a_point_of_the_map_shows_its_image(browser):
    tip = find(browser, f"{MAP} .tip")
    for across in np.linspace(0, 1, 12):
        for down in np.linspace(0, 1, 12):
            move(browser, f"{MAP} .u-over", across, down)
            if tip.is_displayed():
                assert "image" in tip.text
                return
    pytest.fail("no point was found under the pointer")


def test_a_map_can_be_walked_through_by_keys(browser):
    place = find(browser, MAP)
    names = []
    for key in (Keys.HOME, *60 * [Keys.ARROW_RIGHT]):
        place.send_keys(key)
        names.append(spoken(browser))
    assert len(set(names)) == 60 and names[-1] == names[-2]
    assert find(browser, f"{MAP} .tip").is_displayed()


def test_a_class_is_set_apart_on_the_map(browser):
    find(browser, "#classes-0 button").send_keys(Keys.ENTER)
    place = find(browser, MAP)
    names = set()
    for key in (Keys.HOME, *20 * [Keys.ARROW_RIGHT]):
        place.send_keys(key)
        names.add(spoken(browser))
    assert {name.split(" · ")[0] for name in names} == {"w"}


@pytest.fixture
def live(tmp_path):
    folder = make_run(tmp_path / "run", [row(1)])
    server = live_server.make_server([str(folder)], port=0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def wait_for(browser, words):
    """Until a text is on the page."""
    browser.set_script_timeout(15)
    browser.execute_async_script(
        "const [words, done] = arguments; const look = () =>"
        "document.body.innerText.includes(words) ? done() : setTimeout(look, 100); look()",
        words,
    )


def test_live_pages_follow_a_run_and_its_restart(live, window):
    folder, address = live
    read_requests(window)
    window.get(address)
    first = window.current_window_handle
    window.switch_to.new_window("tab")
    second = window.current_window_handle
    window.get(address)
    try:
        for rows, words in (
            ([row(1), row(40)], "Going on: 40 of 100 steps"),
            ([row(2)], "Going on: 2 of 100 steps"),
        ):
            make_run(folder, rows)
            for handle in (first, second):
                window.switch_to.window(handle)
                wait_for(window, words)
        assert not window.get_log("browser")
        assert all(url.startswith((address, "data:")) for url in read_requests(window))
    finally:
        window.close()
        window.switch_to.window(first)
