"""The pages in a browser, at the widths of a desktop and a phone."""

import pytest

from fgl_app.results.comparison import write_comparison
from fgl_app.results.report import write_report
from tests.browser import CHROMIUM, inspect_page, open_browser
from tests.runs import draw_pictures, make_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
LONG = "reply_of_130000000_bytes_" * 12


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    seconds = {"total": 3599.0, "training on synthetic images": 740.0}
    completed = make_run(folder, model_bytes=5 * 10**6, seconds=seconds)
    draw_pictures(completed)
    metrics = {"frechet_distance": 123.4, "precision": 0.5, "recall": 0.5, "label_agreement": 0.5}
    figures = {"downstream_accuracy": 0.5, "model_bytes": 5 * 10**6}
    diffusion = make_run(folder, "diffusion", metrics=metrics, **figures)
    incidents = [
        {"node": str(10**18 + i), "phase": "setup", "reason": LONG, "site": "s" * 64} for i in range(70)
    ]
    problems = {"error": LONG, "rejected_uploads": incidents, "failures": incidents, "skipped_images": [LONG]}
    failed = make_run(folder, "n" * 120, status="failed", **problems)
    runs = [make_run(folder, f"run-{number}-{'long' * 8}", accuracy=number / 10) for number in range(9)]
    return {
        "completed": write_report(completed),
        "diffusion": write_report(diffusion),
        "failed": write_report(failed),
        "comparison": write_comparison(runs, folder / "page.html"),
    }


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("name", "pictures"), [("completed", 4), ("diffusion", 2), ("failed", 2), ("comparison", 2)]
)
def test_a_page_fits_and_makes_no_requests(browser, pages, name, pictures, width):
    seen = inspect_page(browser, pages[name], width)
    assert seen["console"] == []
    assert seen["requests"] == []
    assert seen["broken"] == 0
    assert seen["pictures"] == pictures
    assert seen["cut"] == []
    assert seen["screen"] == width
    assert seen["page"] <= width


def test_faults_of_a_page_are_found(tmp_path, browser):
    page = tmp_path / "bad.html"
    page.write_text(
        '<meta name="viewport" content="width=device-width"><script>console.error("no")</script>'
        '<img src="http://127.0.0.1:9/x.png"><div style="width: 500px">wide</div>'
    )
    seen = inspect_page(browser, page, 390)
    assert seen["page"] > 390
    assert seen["broken"] == 1
    assert "http://127.0.0.1:9/x.png" in seen["requests"]
    assert len(seen["console"]) >= 1
