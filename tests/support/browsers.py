"""What tests in a real browser share: headless Chromium, a pointer, what it was asked for."""

import contextlib
import json
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
Keys = webdriver.Keys
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may be run by root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def make_browser(width, profile):
    options = webdriver.ChromeOptions()
    for argument in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield browser
    finally:
        browser.quit()


def read_requests(browser):
    """Addresses that have been asked for since the last call, whatever became of it."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in asked]


def find(browser, selector):
    return browser.find_element("css selector", selector)


def press(browser, *keys):
    """Keys for whatever has the focus."""
    browser.switch_to.active_element.send_keys(*keys)


def spoken(browser):
    return find(browser, "#spoken").get_attribute("textContent")


def move(browser, selector, across=0.5, down=0.5):
    box = browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
        "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
        selector,
    )
    place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
