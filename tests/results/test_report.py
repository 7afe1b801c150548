import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fgl_app.results.report import write_report
from fgl_app.results.run_directory import RunDirectory
from fgl_app.results.tables import changed_keys
from tests.html_page import Page, read_self_contained
from tests.runs import draw_pictures, make_run

NO_BYTES = {"uplink_bytes": {}, "downlink_bytes": {}}  # nothing to plot, which is faster


def page_of(run):
    return Page(write_report(run).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A completed run with pictures and a report."""
    run = make_run(tmp_path_factory.mktemp("runs"), model_bytes=500_000)
    draw_pictures(run)
    assert write_report(run) == run / "report.html"
    return run


@pytest.fixture(scope="module")
def page(run):
    return read_self_contained(run / "report.html")


@pytest.mark.parametrize(
    "part",
    [
        "fgl-fedavg on digits",
        "Completed",
        "Accuracy 80.0 % after round 2",
        "Setup upload 123.5 KB 12.3 KB per client",
        "Total upload 4.1 MB 412.3 KB per client",
        # 2 rounds x 10 clients x 500 KB = 10 MB; 10 / 4.12345 = 2.43
        "FedAvg would upload 10.0 MB in 2 rounds of the same model, 2.43 times as much",
        "FedAvg: 2 rounds x 10 clients x 500.0 KB,",
        "Time 3 min 5 s",
        "Clients 10",
        "round accuracy loss 1 40.0 % 1.000 2 80.0 % 0.500",
        "setup 123.5 KB 0 B train 4.0 MB 5.0 MB total 4.1 MB 5.0 MB FedAvg (calculated) 10.0 MB 10.0 MB",
        "synthesis 1 min 14 s 40.0 % total 3 min 5 s 100.0 %",
        "python 3.11.7 flwr 1.41.0",
        "seed 3",
        "method fgl",
    ],
)
def test_a_report_has_the_numbers(page, part):
    assert part in page.text


def test_a_report_omits_empty_parts(page):
    assert "Rejected uploads" not in page.text
    assert "Resumed" not in page.text


def test_a_report_embeds_the_pictures(run, page):
    assert len(page.sources) == 4
    embedded = Image.open(io.BytesIO(base64.b64decode(page.sources[0].partition(",")[2])))
    assert embedded.size == (1000, 620)
    assert (run / "accuracy.png").is_file()
    assert (run / "traffic.png").is_file()


def test_a_report_in_another_place_does_not_change_the_run(run, page, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert write_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before
    copy = Page((tmp_path / "page.html").read_text())
    assert (copy.text, copy.sources) == (page.text, page.sources)


@pytest.mark.parametrize("summary", [{}, {"strategy": "fedavg", "model_bytes": 200_000}])
def test_fedavg_is_not_compared_with_itself_or_without_a_model_size(tmp_path, summary):
    text = page_of(make_run(tmp_path, **summary)).text
    assert "FedAvg would" not in text
    assert "FedAvg (calculated)" not in text


def test_a_total_that_equals_the_setup_is_omitted(tmp_path):
    text = page_of(make_run(tmp_path, uplink_bytes={"total": 123_450, "setup": 123_450})).text
    assert "Setup upload 123.5 KB" in text
    assert "Total upload" not in text


def test_one_round_has_no_curve_even_if_an_old_picture_exists(tmp_path):
    run = make_run(tmp_path, accuracies=(0.9,))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(run / "accuracy.png")
    page = page_of(run)
    assert len(page.sources) == 1
    assert "Accuracy 90.0 % after round 1" in page.text


def test_a_diffusion_run_has_its_key_figures(tmp_path):
    metrics = {"frechet_distance": 7.81, "precision": 0.6, "recall": 0.7, "label_agreement": 0.93}
    run = make_run(tmp_path, accuracies=(0,), metrics=metrics, downstream_accuracy=0.945, **NO_BYTES)
    text = page_of(run).text
    assert (
        "Frechet distance 7.81 after round 1 Label agreement 93.0 % samples classified as their class "
        "Downstream accuracy 94.5 % of a classifier trained on samples" in text
    )
    assert "round Frechet distance precision recall label agreement 1 7.81 60.0 % 70.0 % 93.0 %" in text


def test_accuracy_by_domain_has_a_table(tmp_path):
    run = make_run(tmp_path, accuracies=(), accuracy_by_domain={"day": 0.9, "night": None}, **NO_BYTES)
    assert "Accuracy by domain day 90.0 % night —" in page_of(run).text


def test_a_report_escapes_markup(tmp_path):
    failures = [{"node": 4, "reason": "<b>boom</b>"}]
    run = make_run(tmp_path, accuracies=(), dataset="<img src=x>", failures=failures, **NO_BYTES)
    html = write_report(run).read_text()
    page = Page(html)
    assert "<img src=x>" not in html
    assert not {"script", "b"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "<b>boom</b>" in page.text


def test_a_failed_run_has_its_error_and_incidents(tmp_path):
    incident = {"node": "7", "phase": "train", "reason": "label 12 is out of range 0..9", "site": "lab"}
    run = make_run(
        tmp_path,
        accuracies=(),
        status="failed",
        error="1 good reply, min-nodes is 2",
        rejected_uploads=[incident] * 3,
        failures=[{"node": 4, "reason": "timed out"}],
        skipped_images=["a.png: truncated"],
        **NO_BYTES,
    )
    text = page_of(run).text
    assert re.search(r"Failed : 1 good reply, min-nodes is 2", text)
    assert "Accuracy —" in text
    assert "Clients 10 3 rejections, 1 failure" in text
    assert "Rejected uploads node reason 7, site lab, train label 12 is out of range 0..9 (3 times)" in text
    assert "Failures node reason 4 timed out" in text
    assert "Skipped images a.png: truncated" in text


def test_many_incidents_are_cut(tmp_path):
    failures = [{"node": str(number), "reason": "gone"} for number in range(1000)]
    text = page_of(make_run(tmp_path, accuracies=(), failures=failures, **NO_BYTES)).text
    assert text.count(" gone") == 50
    assert "and 950 more" in text


def test_a_report_names_resumptions(tmp_path):
    run = RunDirectory.create(tmp_path, "again", {"method": "fgl"})
    run.log({"event": "resumed", "rounds": 0, "uploads": True})
    run.log({"event": "resumed", "rounds": 4, "uploads": True})
    assert re.search(
        r"Resumed before the end of the first round \(.* UTC\), and after round 4 \(.* UTC\)\.",
        page_of(run.path).text,
    )


def test_a_killed_run_has_its_results_so_far(tmp_path):
    config = {"method": "classifier", "inner-strategy": "fedprox", "dataset": "/x/mine"}
    run = make_run(tmp_path, config=config)
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')
    text = page_of(run).text
    assert "fedprox on mine" in text
    assert "Unfinished" in text
    assert "Accuracy 80.0 % after round 2" in text
    assert "Total upload 4.1 MB" in text


def test_a_report_needs_a_run_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run directory: it has no config\.json"):
        write_report(tmp_path)


def test_changed_keys_differ_from_the_methods_defaults():
    # Five local epochs are FGL's default and not FedDDPM's.
    config = {"local-epochs": 5, "seed": 3, "output-dir": "/x", "resume": True, "gone": 1}
    assert changed_keys(config | {"method": "fgl"}) == {"seed"}
    assert changed_keys(config | {"method": "fedddpm"}) == {"seed", "local-epochs"}
    assert changed_keys(config | {"method": "nothing"}) == frozenset()
