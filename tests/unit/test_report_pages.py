"""The pages as a browser shows them, on a desk and on a phone."""

import pytest

from fgl_app.results.comparison import write_comparison
from fgl_app.results.report import write_report
from tests.browser import CHROMIUM, inspect_page, open_browser
from tests.runs import a_run, illustrate

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
WIDTHS = (1280, 390)
LONG = "reply_of_130000000_bytes_" * 12


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def assert_sound(seen, width):
    assert seen["console"] == []
    assert seen["requests"] == []
    assert seen["broken"] == 0
    assert seen["cut"] == []
    assert seen["screen"] == width
    assert seen["page"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_fits_and_asks_nobody(tmp_path, browser, width):
    seconds = {"total": 3599.0, "training on synthetic images": 740.0}
    run = a_run(tmp_path, model_bytes=5 * 10**6, seconds=seconds)
    illustrate(run)
    seen = inspect_page(browser, write_report(run), width)
    assert_sound(seen, width)
    assert seen["pictures"] == 4  # accuracy, traffic, labels, images


@pytest.mark.parametrize("width", WIDTHS)
def test_the_many_numbers_of_a_diffusion_model_fit(tmp_path, browser, width):
    quality = {"frechet_distance": 123.4, "precision": 0.5, "recall": 0.5, "label_agreement": 0.5}
    more = {"downstream_accuracy": 0.5, "model_bytes": 5 * 10**6}
    run = a_run(tmp_path, quality=quality, **more)
    seen = inspect_page(browser, write_report(run), width)
    assert_sound(seen, width)
    assert seen["pictures"] == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_a_failed_run_with_long_reasons_fits(tmp_path, browser, width):
    incidents = [
        {"node": str(10**18 + i), "phase": "setup", "reason": LONG, "site": "s" * 64} for i in range(70)
    ]
    run = a_run(
        *(tmp_path, "n" * 120), status="failed", error=LONG, rejected_uploads=incidents, failures=incidents
    )
    assert_sound(inspect_page(browser, write_report(run), width), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_of_many_runs_scrolls_inside_its_tables(tmp_path, browser, width):
    runs = [a_run(tmp_path, f"run-{number}-{'long' * 8}", accuracy=number / 10) for number in range(9)]
    seen = inspect_page(browser, write_comparison(runs, tmp_path / "page.html"), width)
    assert_sound(seen, width)
    assert seen["pictures"] == 2


def test_a_bad_page_is_found_out(tmp_path, browser):
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
