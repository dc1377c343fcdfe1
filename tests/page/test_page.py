"""The page opens without a complaint, answers to keys, mouse and search, and shows hostile text as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support import tools
from unit.machines import IPA, S2_NORMAL, VM_MEMORY, Nvhe

from gdbhyp.analyses.drawing import draw
from gdbhyp.analyses.report import MachineReport, report
from gdbhyp.arch.permissions import EXECUTE, READ, WRITE
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.mapped import Shape
from gdbhyp.render.output import text_lines
from gdbhyp.render.style import Style
from gdbhyp.trace import files

LOG = tools.ROOT / "tests" / "unit" / "data" / "demo-int.log"
HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>\u202e\x1b[31m"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = tools.need("chromium")
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--window-size=1300,1000", f"--user-data-dir={tmp_path_factory.mktemp('profile')}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(tools.need("chromedriver")))
    yield driver
    driver.quit()


def machine_report() -> MachineReport:
    return report(Nvhe().stop(), ("a.log", files.open_trace(str(LOG))), lambda *_: None)


def opened(browser: webdriver.Chrome, described: MachineReport, folder: Path) -> Path:
    """Write the page, open it, and check that the browser has nothing to say."""
    page = folder / "report.html"
    page.write_text("\n".join(text_lines(described, Style())), encoding="utf-8")
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    quiet(browser)
    return page


def quiet(browser: webdriver.Chrome) -> None:
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def text(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def click(browser: webdriver.Chrome, name: str) -> None:
    browser.find_element(By.ID, name).click()


def test_what_it_shows(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, machine_report(), tmp_path)
    assert "VTTBR_EL2" in text(browser, "vms")
    labels = [option.text for option in browser.find_elements(By.CSS_SELECTOR, "#tree option")]
    assert {"hypervisor stage 1", "VM 0 stage 2", "VM 1 stage 2"} <= set(labels)
    assert "world switches" in text(browser, "trace-body")
    assert "green the host" in text(browser, "trace-body")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#legend li")) == 7
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_zoom_and_keys(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, machine_report(), tmp_path)
    whole = text(browser, "scale")
    click(browser, "zoom-in")
    assert text(browser, "scale") != whole
    click(browser, "zoom-out")
    click(browser, "fit")
    assert text(browser, "scale") == whole
    canvas = browser.find_element(By.ID, "map")
    canvas.send_keys("n")
    first = text(browser, "details")
    assert first.startswith("VA 0x")
    assert "device memory" in first
    canvas.send_keys("n")
    assert text(browser, "details") != first
    canvas.send_keys("p")
    assert text(browser, "details") == first
    canvas.send_keys("+", Keys.ARROW_RIGHT, "-", Keys.HOME)
    assert text(browser, "scale") == whole
    quiet(browser)


def test_mouse(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, machine_report(), tmp_path)
    chips = browser.find_elements(By.CSS_SELECTOR, "#chips button")
    chips[0].click()
    actions = webdriver.ActionChains(browser)
    actions.move_to_element(browser.find_element(By.ID, "map")).click().perform()
    assert text(browser, "details").startswith("VA 0x")
    before = text(browser, "scale")
    actions.scroll_from_origin(
        ScrollOrigin.from_element(browser.find_element(By.ID, "map")), 0, -200
    ).perform()
    assert text(browser, "scale") != before
    quiet(browser)


def test_search(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """A physical address is found wherever it can be reached from."""
    opened(browser, machine_report(), tmp_path)
    box = browser.find_element(By.ID, "query")
    box.send_keys(hex(VM_MEMORY[1] + 0x1234), Keys.ENTER)
    hits = text(browser, "hits")
    assert f"PA reached from IPA {IPA + 0x1234:#x} of VM 1 stage 2" in hits
    assert "of VM 0 stage 2" not in hits
    last = browser.find_elements(By.CSS_SELECTOR, "#hits button")[-1]
    last.click()
    assert f"to PA {VM_MEMORY[1]:#x}" in text(browser, "details")
    box.clear()
    box.send_keys("VM 0 stage 2", Keys.ENTER)
    assert browser.find_element(By.ID, "tree-summary").text.startswith("IPA to PA")
    quiet(browser)


def test_from_a_finding_into_the_map(browser: webdriver.Chrome, tmp_path: Path) -> None:
    model = Nvhe()
    model.vms[1].map(IPA + 0x100000, VM_MEMORY[0], 3, S2_NORMAL)
    opened(browser, report(model.stop(), None, lambda *_: None), tmp_path)
    body = text(browser, "findings-body")
    assert "shared" in body
    button = next(b for b in browser.find_elements(By.CSS_SELECTOR, "#findings button") if "IPA" in b.text)
    button.click()
    assert text(browser, "tree-summary").startswith("IPA to PA")
    assert text(browser, "details").startswith("IPA 0x")
    quiet(browser)


def test_hostile_text(browser: webdriver.Chrome, tmp_path: Path) -> None:
    plain = machine_report()
    vms = tuple(replace(vm, how=HOSTILE) for vm in plain.search.vms)
    described = replace(plain, origin=HOSTILE, search=replace(plain.search, vms=vms), problems=(HOSTILE,))
    page = opened(browser, described, tmp_path)
    assert browser.title == "gdbhyp report"
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert "<img src=x" in text(browser, "subtitle")
    assert "\u202e" not in page.read_text(encoding="utf-8")
    assert "\\x1b[31m" in text(browser, "subtitle")


def test_dark_and_light(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, machine_report(), tmp_path)
    ground = "return getComputedStyle(document.body).backgroundColor"
    before: Any = browser.execute_script(ground)
    click(browser, "theme")
    assert browser.execute_script(ground) != before
    quiet(browser)


def test_a_million_leaves(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """A guest of 4 GiB, each page a range of its own: the page stays small, and opens before a person wonders."""
    plain = machine_report()
    shapes = [
        Shape("IPA", "PA", "EL1", 3, 4096, r, r, "Normal Write-Back", 15, 3, False, True, "Non-secure")
        for r in (READ | WRITE, READ | WRITE | EXECUTE)
    ]
    pages = (
        MappedRange(
            Address(n << 12), Address(n + 1 << 12), Address((n * 7 % (1 << 20)) << 12), False, shapes[n % 2]
        )
        for n in range(1 << 20)
    )
    drawing = draw("VM 0 stage 2", pages, 6000)
    assert drawing.ranges == 1 << 20
    assert drawing.mapped == 4 << 30
    page = opened(browser, replace(plain, maps=(drawing,)), tmp_path)
    assert page.stat().st_size < 5 << 20
    took: Any = browser.execute_script(
        "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime"
    )
    # On a busy machine; measured alone it is a fraction of a second.
    assert took < 30_000
    assert "1048576 ranges" in text(browser, "tree-summary")
