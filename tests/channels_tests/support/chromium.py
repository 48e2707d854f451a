"""Chromium for tests: one headless browser with its own profile."""

from .requirements import require

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",
    "--window-size=1100,800",
]


def start_chromium(profile, *flags):
    """Return a WebDriver of a new Chromium, with `flags`, that keeps its files in the folder `profile`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = require("chromium")
    for flag in [*FLAGS, *flags, "--user-data-dir=" + profile]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(require("chromedriver"))
    return webdriver.Chrome(options=options, service=service)
