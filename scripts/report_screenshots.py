"""Pictures of a report in headless Chromium: light and dark at 1280 pixels, and as on a telephone.

Those in `docs/assets` are of a short search: `hf-biotune tune --model demo/efficientnet-lite0
--dataset demo/mnist-200 --image-size 32 --budget 9 --population-size 5 --epochs 4 --cpu`.

    python scripts/report_screenshots.py biotune/report.html --output docs/assets

Needs selenium, chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)
# Name, width in pixels, and whether the theme is changed from the light one.
PICTURES = (
    ("report-light", 1280, False),
    ("report-dark", 1280, True),
    ("report-phone", 390, False),
)
COLOURS = 128


def open_browser(profile: str) -> webdriver.Chrome:
    """Headless Chromium without any network of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def picture_of(browser: Any, address: str, width: int, is_dark: bool) -> Image.Image:
    """The whole page."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)
    if is_dark:
        browser.find_element("id", "theme").click()
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    options = {"captureBeyondViewport": True, "clip": clip}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", options)
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/assets"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            for name, width, is_dark in PICTURES:
                picture = picture_of(browser, arguments.report.resolve().as_uri(), width, is_dark)
                path = arguments.output / f"{name}.png"
                picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
                print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
