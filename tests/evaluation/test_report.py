"""The report: complete, self-contained, the same in three forms, without a patient's name; and seen in a browser."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import ResNet
from sklearn import metrics
from torch import Tensor, nn

from monai_medmerge import Source, coefficients, match, merge
from monai_medmerge.evaluation import Naming, Resampling, check, compare, compare_predictions, contributions
from monai_medmerge.evaluation.report.assembly import ReportContent, describe_command, document
from monai_medmerge.evaluation.report.first_screen import summary
from monai_medmerge.evaluation.report.page import CARD, DATA, PAGE, number, write_report
from monai_medmerge.evaluation.report.points import net_benefit, precision_points, roc_points
from monai_medmerge.evaluation.similarity import layer_similarity
from monai_medmerge.ranking.order import rank

PATIENT = "MUSTERMANN^ERIKA"
EVIL = "<script>alert(1)</script>|`*x*`"
CLASSES = ["malignant", f"benign {EVIL}"]


def build() -> nn.Module:
    return ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, 1, num_classes=2)


def batches(count: int = 48) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(count, 1, 32, 32, generator=generator), torch.arange(count) % 2
    found = []
    for n in range(0, count, 16):
        files = [f"/ward/{PATIENT}/{PATIENT}_{k}.dcm" for k in range(n, n + 16)]
        part = MetaTensor(images[n : n + 16], meta={"filename_or_obj": files, "PatientName": PATIENT})
        facts = {"site": ["north", "south"] * 8, "patient": [f"{PATIENT} {k // 2}" for k in range(n, n + 16)]}
        found.append({"image": part, "label": labels[n : n + 16], "file": files, **facts})
    return found


@pytest.fixture(scope="module")
def content() -> ReportContent:
    torch.manual_seed(0)
    network, data = build(), batches()
    sources = [Source(n, build().state_dict(), {"file": f"{PATIENT}.pt", "note": PATIENT}) for n in ("chest", EVIL)]
    sources.append(Source("copy", sources[0].tensors))
    merged = merge(network, sources, exclude=["fc.*"])
    found = compare(
        build(),
        build(),
        data,
        CLASSES,
        subgroups=["site"],
        patient="patient",
        training_data=data,
        naming=Naming(salt="s"),
        samples=200,
    )
    names = [source.name for source in sources]
    return ReportContent(
        title=f"Breast {EVIL}",
        purpose="A test.",
        sources=sources,
        about={"chest": {"data": "chest X-ray, T1/T2", "licence": "CC BY 4.0", "reference": "https://example.org/a"}},
        match=match(network, sources),
        ranking=rank(network, sources, data),
        contributions=contributions(coefficients(merged), names),
        coefficients=coefficients(merged),
        similarity=layer_similarity(merged, network, sources, data),
        course={name: [(0, 0.3), (1, 0.4)] for name in names},
        curves={EVIL: [(1, 0.7), (2, 0.5)]},
        stages={"merged": {"macro_f1": 0.5, "interval": [0.4, 0.6]}, f"tuned {EVIL}": {"macro_f1": 0.6, "cases": 48}},
        comparison=found,
        gate=check(found),
        settings={"dataset_dir": f"/ward/{PATIENT}", "files": [f"C:\\{PATIENT}.pt"], "granularity": "kernel"},
        seeds={"training": 0},
        command=["python", "-m", "monai.bundle", "run", "--config_file", "configs/verify.json", f"--site=/x/{PATIENT}"],
    )


@pytest.fixture(scope="module")
def written(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_report(tmp_path_factory.mktemp("report"), content)


class Page(html.parser.HTMLParser):
    """Collects tags, and complains of what is not closed."""

    VOID = ("meta", "link", "img", "source", "br", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page


def test_the_page_holds_everything_and_asks_for_nothing(written: dict[str, Path]) -> None:
    page, text = parse(written[PAGE]), written[PAGE].read_text()
    assert page.open == []
    assert len(written[PAGE].read_bytes()) < 5_000_000
    addresses = [v for _, a in page.found for k, v in a.items() if k in ("src", "srcset", "href") and v]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    names = {tag for tag, _ in page.found}
    assert {"main", "nav", "h1", "figcaption", "table", "picture"} <= names
    assert not {"script", "iframe", "form"} & names
    assert all(attributes.get("alt") for tag, attributes in page.found if tag == "img")
    identifiers = [a["id"] for _, a in page.found if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    headings = {"short", "results", "done"}
    assert {f"#{name}" for name in identifiers if name not in headings} == {a for a in addresses if a.startswith("#")}
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_all_three_say_the_same(written: dict[str, Path], content: ReportContent) -> None:
    data = json.loads(written[DATA].read_text())
    assert data == json.loads(json.dumps(document(content)))
    page, card = written[PAGE].read_text(), written[CARD].read_text()
    assert content.comparison is not None
    assert content.gate is not None
    for row in content.comparison.rows:
        value = number(row.found.candidate.value)
        assert value in page
        assert value in card
    for text in (page, card):
        assert f"{content.sources[0].sha256[16:]}" in text
        assert "CC BY 4.0" in text
        assert "not stated" in text
        assert "redundant: the same features as" in text
        assert "not a medical device" in text.lower()
        assert content.gate.outcome in text
        assert data["versions"]["torch"] in text
        assert "verify.json" in text
        assert "default, not chosen by the site" in text
    assert data["sources"][0]["data"] == "chest X-ray, T1/T2"


def test_no_name_of_a_patient_is_anywhere(written: dict[str, Path]) -> None:
    for path in written.values():
        assert "MUSTERMANN" not in path.read_text()
        assert "ward" not in path.read_text()


def test_names_are_text_and_never_markup(written: dict[str, Path]) -> None:
    assert "<script" not in written[PAGE].read_text()
    card = written[CARD].read_text()
    assert "<script" not in re.sub(r"\\<script", "", card)
    tables = [line for line in card.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    # Every table keeps the number of columns that its rule has.
    width = 0
    for n, found in enumerate(widths):
        if n + 1 < len(tables) and set(tables[n + 1]) <= set("|-"):
            width = found
        assert found == width


def test_a_report_of_nothing_is_a_report(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new" / "folder", ReportContent("Nothing yet"))
    assert parse(paths[PAGE]).open == []
    assert json.loads(paths[DATA].read_text())["gate"] is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted([PAGE, DATA, CARD])


def test_the_same_content_is_the_same_report(tmp_path: Path, content: ReportContent, written: dict[str, Path]) -> None:
    again = write_report(tmp_path, content)
    assert all(again[name].read_bytes() == written[name].read_bytes() for name in written)


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    paths = write_report(tmp_path, ReportContent("Old"))
    old = {name: path.read_bytes() for name, path in paths.items()}
    with pytest.raises(ValueError, match="could not convert"):
        write_report(tmp_path, ReportContent("New", curves={"loss": [("one", 1.0)]}))
    assert {name: path.read_bytes() for name, path in paths.items()} == old


def test_training_that_diverged_is_reported(tmp_path: Path) -> None:
    curves = {"loss": [(1.0, 0.5), (2.0, float("nan"))], "never begun": []}
    paths = write_report(tmp_path, ReportContent("Diverged", curves=curves))
    assert json.loads(paths[DATA].read_text())["curves"] == {"loss": [[1.0, 0.5], [2.0, None]]}
    assert "from 0.500 to – in 2 epochs" in paths[CARD].read_text()


def test_odd_values_become_plain_ones() -> None:
    stage = {"a": np.float32(0.5), "b": float("nan"), "c": Tensor([1.0]), "d": (1, None), "e": {"f": np.int64(3)}}
    found = document(ReportContent("x", stages={"s": stage}))["stages"]["s"]
    assert found == {"a": 0.5, "b": None, "c": "a Tensor", "d": [1, None], "e": {"f": 3}}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["run", "/a/doe.dcm"], "run PATH"),
        (["--files", "['/a/doe', 'b']"], "--files PATH"),
        (["--meta_file=C:\\x\\metadata.json"], "--meta_file=metadata.json"),
        (["--epochs", "20"], "--epochs 20"),
    ],
)
def test_commands_lose_their_paths(parts: list[str], expected: str) -> None:
    assert describe_command(parts) == expected


def test_names_with_dollars_and_braces_are_drawn_as_text(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    good = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    names = ["$x_{$", "\\alpha $"]
    found = compare_predictions(good, 1 - good, labels, names, resampling=Resampling(samples=20))
    frame = contributions({"$a.weight": torch.ones(2, 3) / 2}, ["$s", "t$"])
    paths = write_report(tmp_path, ReportContent("$t$", comparison=found, gate=check(found), contributions=frame))
    assert "$x_{$" in paths[PAGE].read_text()


def test_the_first_screen_says_what_it_is_in_words() -> None:
    labels = np.arange(300) % 2
    good = np.where(labels[:, None] == [0, 1], 0.95, 0.05)
    worse = good.copy()
    worse[1:60:2] = worse[1:60:2, ::-1]
    found = compare_predictions(good, worse, labels, ["cyst", "solid"], resampling=Resampling(samples=100))
    told = summary(found, check(found))
    assert (told["use"]["sign"], told["use"]["word"], told["better"]["word"]) == ("✗", "Failed", "Worse")
    assert [text.split(":")[0] for text in told["worse_for"]] == ["solid"]
    same = compare_predictions(good, good, labels, ["cyst", "solid"], resampling=Resampling(samples=100))
    told = summary(same, check(same))
    assert (told["use"]["word"], told["better"]["word"], told["worse_for"]) == ("Passed", "Equal in every case", [])


def test_curves_are_those_of_the_libraries() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.3
    scores = (rng.random(500) + positive).round(2) / 2
    false, true = roc_points(scores, positive)
    assert np.trapezoid(true, false) == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-9)
    recall, precision = precision_points(scores, positive)
    area = float(np.sum(np.diff(recall) * precision[1:]))
    assert area == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-9)
    benefit = net_benefit(scores, positive)
    for n in (9, 49, 89):
        threshold, said = benefit["network"][0][n], scores >= benefit["network"][0][n]
        by_hand = (said & positive).mean() - (said & ~positive).mean() * threshold / (1 - threshold)
        assert benefit["network"][1][n] == pytest.approx(by_hand, abs=1e-9)


def test_ten_thousand_cases_are_reported_in_under_a_minute(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 10_000)
    both = []
    for strength in (1.5, 1.6):
        scores = np.exp(rng.normal(size=(10_000, 4)) + strength * np.eye(4)[labels])
        both.append(scores / scores.sum(1, keepdims=True))
    start = time.process_time()
    found = compare_predictions(*both, labels, list("abcd"), {"site": [str(n % 3) for n in range(10_000)]})
    paths = write_report(tmp_path, ReportContent("Many", comparison=found, gate=check(found)))
    assert time.process_time() - start < 60
    assert paths[PAGE].stat().st_size < 5_000_000


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
