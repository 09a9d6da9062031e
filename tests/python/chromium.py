"""Headless Chromium, the server in a thread, and what a person does with the page."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastdllm import LLM

from held import SECONDS

pytest.importorskip("fastapi", reason="the page is served by fastdllm[serve]")
pytest.importorskip("selenium", reason="the page is tested through selenium")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("there is no chromium with its driver", allow_module_level=True)

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from fastdllm.serve.server import open_socket, server_of
from fastdllm.serve.settings import Settings

# Text whose contrast with what is behind it is below 4.5, except where a control is disabled.
CONTRASTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function over(colours) {
  canvas.clearRect(0, 0, 1, 1);
  for (const one of colours) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
  return canvas.getImageData(0, 0, 1, 1).data;
}
function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
return [...document.querySelectorAll("body *")].filter((one) =>
  [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
  && one.checkVisibility() && !one.closest("svg, :disabled, .unseen, noscript")
).map((one) => {
  const behind = [];
  for (let at = one; at; at = at.parentElement) {
    behind.unshift(getComputedStyle(at).backgroundColor);
  }
  const back = luminance(over(behind));
  const text = luminance(over([...behind, getComputedStyle(one).color]));
  const ratio = (Math.max(back, text) + 0.05) / (Math.min(back, text) + 0.05);
  return [ratio, one.className || one.tagName, one.textContent.slice(0, 30)];
}).filter(([ratio]) => ratio < 4.5);
"""


class Page:
    """A browser, and what a person does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.complaints()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [scheme_feature, still]}
        )
        self.driver.get(url)
        if url.startswith("http"):
            self.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
            self.driver.get(url)
            self.until(lambda: self.js("return document.getElementById('theme').textContent"))

    def until(self, holds: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, SECONDS, poll_frequency=0.02).until(lambda _: holds())

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def button(self, name: str) -> Any:
        return self.driver.find_element(By.XPATH, f"//button[normalize-space()='{name}']")

    def choose(self, field: str, text: str) -> None:
        Select(self.find(field)).select_by_visible_text(text)

    def write(self, field: str, text: str) -> None:
        self.find(field).clear()
        self.find(field).send_keys(text)

    def ask(self, prompt: str) -> None:
        before = len(self.all(".turn"))
        self.find("#prompt").send_keys(prompt, Keys.ENTER)
        self.until(lambda: len(self.all(".turn")) > before or self.error())

    def answered(self) -> str:
        """Wait for the answer that is under way; return its text."""
        self.until(lambda: self.find("#send").is_displayed())
        assert not self.error()
        text: str = self.js("return [...document.querySelectorAll('.turn p')].at(-1).textContent")
        return text

    def error(self) -> str:
        text: str = self.js("return document.getElementById('error')?.textContent ?? ''")
        return text

    def fact(self, name: str) -> str:
        path = f"//dt[.='{name}']/following-sibling::dd"
        text: str = self.driver.find_element(By.XPATH, path).text
        return text

    def tokens(self) -> list[str]:
        """Return what stands at each position."""
        found: list[str] = self.js(
            "return [...document.querySelectorAll('[data-position]')].map((one) => one.textContent)"
        )
        return found

    def label(self, position: int) -> str:
        text: str = self.find(f"[data-position='{position}']").get_attribute("aria-label")
        return text

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console, CSP's too, since the last call."""
        log = self.driver.get_log("browser")
        return [one["message"] for one in log if one["level"] in ("SEVERE", "WARNING")]


@contextlib.contextmanager
def browsing() -> Iterator[Page]:
    """Run a browser for as long as it is needed."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Page(driver)
    finally:
        driver.quit()


@contextlib.contextmanager
def serving(models: dict[str, LLM], settings: Settings) -> Iterator[str]:
    """Serve models in a thread; yield the address."""
    with running(server_of(models, settings)) as url:
        yield url


@contextlib.contextmanager
def running(server: Any) -> Iterator[str]:
    """Run a uvicorn server in a thread; yield its address."""
    listening = open_socket("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listening.close()
