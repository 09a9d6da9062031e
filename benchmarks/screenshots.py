"""Takes the documentation's picture of the page: serves a package, asks, slides back, photographs.

    python benchmarks/screenshots.py packages/tiny_math benchmarks/results/page.png [--dark]

Needs fastdllm[serve], selenium, Pillow, and Chromium with its driver on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from fastdllm import LLM
from fastdllm.serve.server import open_socket, server_of
from fastdllm.serve.settings import Settings

QUESTION = "Owen had 19 apples, bought 9 and lost 2. How many are left?"
WIDTH, HEIGHT = 1200, 1060  # pixels


def photograph(driver: Any, url: str) -> bytes:
    """Ask the question in 18 steps, go back to the tenth pass; return a PNG."""
    driver.get(url)
    wait = WebDriverWait(driver, 60)
    wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#model option"))
    Select(driver.find_element(By.ID, "policy")).select_by_value("steps")
    for field, value in (
        ("#value", 18),
        ("[name=max_new_tokens]", 48),
        ("[name=block_length]", 16),
    ):
        found = driver.find_element(By.CSS_SELECTOR, field)
        found.clear()
        found.send_keys(str(value))
    driver.find_element(By.ID, "prompt").send_keys(QUESTION, Keys.ENTER)
    wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, ".turn.assistant button"))
    for _ in range(5):
        driver.find_element(By.XPATH, "//button[.='Back']").click()
    driver.find_element(By.CSS_SELECTOR, "[data-position='20']").click()
    driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    taken: bytes = driver.get_screenshot_as_png()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dark", action="store_true")
    chosen = parser.parse_args()
    llm = LLM(chosen.package)
    listening = open_socket("127.0.0.1", 0)
    server = server_of({chosen.package.absolute().name: llm}, Settings())
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = str(shutil.which("chromium"))
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver")))
    )
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if chosen.dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        taken = photograph(driver, f"http://127.0.0.1:{listening.getsockname()[1]}/")
    finally:
        driver.quit()
        server.should_exit = True
        thread.join()
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    picture.save(chosen.output, optimize=True)
    print(
        f"{chosen.output}: {picture.width} x {picture.height}, {chosen.output.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
