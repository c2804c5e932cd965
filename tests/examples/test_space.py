"""The Space is started and clicked through in a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import digits_split, small_resnet
from transformers import ConvNextImageProcessor

from hf_biotune import BioTuneConfig, get_biotune_model

SPACE = Path(__file__).parents[2] / "examples" / "space"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the running Space, which serves a small network."""
    root = tmp_path_factory.mktemp("space")
    torch.manual_seed(0)
    small_resnet().save_pretrained(root / "base")
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(root / "base")
    config = BioTuneConfig(lr_multipliers={"layer4": 0.5, "head": 2.0})
    get_biotune_model(small_resnet(), config).save_pretrained(root / "run" / "adapter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "BASE_MODEL": str(root / "base"),
        "ADAPTER": str(root / "run"),
        "SUBFOLDER": "adapter",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"the Space does not answer at {url}")


def test_a_picture_is_classified_by_a_click(address: str, tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver: apt-get install both")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    pixels = digits_split(1, 0).inputs["pixel_values"][3].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((64, 64)).save(tmp_path / "three.png")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(address)
        wait = WebDriverWait(driver, 90)
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "input[type=file]"))
        driver.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(
            str(tmp_path / "three.png")
        )
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "img[src*='/file=']"))
        driver.find_element(By.XPATH, "//button[contains(., 'Classify')]").click()
        wait.until(lambda d: "%" in d.find_element(By.TAG_NAME, "body").text)
        body = driver.find_element(By.TAG_NAME, "body").text
        assert any(name in body for name in ("zero", "one", "two", "three", "four", "five"))
        assert "layer4" in body
        driver.save_screenshot(str(tmp_path / "space.png"))
    finally:
        driver.quit()
