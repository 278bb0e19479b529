"""The report, seen in Chromium on a phone and on a screen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.reports import parse
from torch import Tensor, nn

from monai_medmerge.evaluation import check, compare
from monai_medmerge.evaluation.report.assembly import ReportContent
from monai_medmerge.evaluation.report.page import PAGE, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    if CHROMIUM is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


def check_page(browser: Any, width: int) -> None:
    """Nothing is cut but in regions that scroll, and axe finds nothing."""
    cut = browser.execute_script(
        """return [...document.querySelectorAll('body *')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width && box.right > arguments[0] + 1 && !e.closest('.scroll');
        }).map(e => e.outerHTML.slice(0, 100))""",
        width,
    )
    assert cut == []
    axe = pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed")
    script = Path(axe.__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.skip("axe-selenium-python holds no axe-core")
    # The page forbids every script; axe is put in from outside, which the browser allows its driver.
    browser.execute_script(script.read_text(encoding="utf-8"))
    found = browser.execute_async_script("const done = arguments[arguments.length - 1]; axe.run().then(done)")
    assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found["violations"]] == []
    assert len(found["passes"]) > 15


def volumes() -> list[dict[str, Tensor]]:
    """Two cubes each, of which the candidate loses one."""
    truth = torch.zeros(4, 1, 20, 20, 12)
    truth[..., 3:8, 3:8, 3:9], truth[..., 12:17, 12:17, 3:9] = 1, 2
    return [{"image": truth + 0.05 * torch.randn(4, 1, 20, 20, 12), "label": truth}]


class Bands(nn.Module):
    """Says a label by the brightness of each voxel."""

    def __init__(self, highest: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([0.0, 1.0, highest]))

    def forward(self, images: Tensor) -> Tensor:
        return -((images - self.centres.view(1, 3, 1, 1, 1)) ** 2)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    found = compare(Bands(2.0), Bands(9.0), volumes(), ["none", "<b>left</b>", "right"], changes={}, samples=50)
    content = ReportContent("Volumes", comparison=found, gate=check(found))
    return write_report(tmp_path_factory.mktemp("volumes"), content)[PAGE]


def test_slices_of_volumes_are_shown_one_at_a_time_by_keys(browser: Any, segmented: Path) -> None:
    assert segmented.stat().st_size < 5_000_000
    assert "<b>left" not in segmented.read_text()
    for width in (390, 1280):
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get(segmented.as_uri())
        check_page(browser, width)
        frames = "return [...document.querySelector('.viewer').querySelectorAll('.frame')].map(f => f.offsetHeight > 0)"
        before = browser.execute_script(frames)
        assert before.count(True) == 1
        assert len(before) > 3
        browser.find_element("css selector", ".viewer input:checked").send_keys("\ue014")
        after = browser.execute_script(frames)
        assert after.index(True) == before.index(True) + 1


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_every_figure_and_asks_for_nothing(
    browser: Any, written: dict[str, Path], width: int, scheme: str
) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get_log("performance")
    browser.get(written[PAGE].as_uri())
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [written[PAGE].as_uri()]
    script = """return [...document.images].map(image => {
        image.scrollIntoView();
        const box = image.getBoundingClientRect();
        return [image.complete, image.naturalWidth, box.left, box.width, box.height, image.currentSrc];
    })"""
    images = browser.execute_script(script)
    assert len(images) == 9 + 5 + 40
    pictures = parse(written[PAGE]).found
    shown = {
        a["srcset" if scheme == "dark" else "src"] for t, a in pictures if t == ("source", "img")[scheme == "light"]
    }
    for complete, natural, left, wide, high, source in images:
        assert complete
        assert natural > 250
        assert 0 <= left < width
        assert min(wide, high) > 100
        assert source in shown or source.startswith("data:image/webp")
    check_page(browser, width)
    # The page itself never scrolls sideways.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
