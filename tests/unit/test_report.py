"""The report of a run, the page that compares runs, and `fgl report` and `fgl list`."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fgl_app.results.comparison import write_comparison
from fgl_app.results.report import write_report
from fgl_app.results.run_directory import RunDirectory
from fgl_app.results.runs import Run, find_runs
from fgl_app.results.tables import changed_keys
from tests.runs import a_run, illustrate


class Page(HTMLParser):
    """The tags of a page, the text it shows and the sources of its images; checks that tags are closed."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.sources, self.text, self.bold = [], [], [], "", []
        self.best = False
        self.feed(html)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)
        self.best = ("class", "best") in attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "
            if self.best and data.strip():
                self.bold.append(data.strip())


def page_of(run):
    return Page(write_report(run).read_text())


def assert_stands_alone(html):
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert {source[:22] for source in page.sources} <= {"data:image/png;base64,"}
    return page


# One run


def test_report_holds_the_numbers(tmp_path):
    path = write_report(a_run(tmp_path, model_bytes=500_000))
    assert path == tmp_path / "a-run" / "report.html"
    text = Page(path.read_text()).text
    for part in (
        "fgl-fedavg on digits",
        "Completed",
        "Accuracy 80.0 % after round 2",
        "The one upload 123.5 KB 12.3 KB a client",
        "Uploaded in all 4.1 MB 412.3 KB a client",
        # 2 rounds x 10 clients x 500 KB = 10 MB; 10 / 4.12345 = 2.43
        "FedAvg would upload 10.0 MB in 2 rounds of the same model, 2.43 times as much",
        "FedAvg: 2 rounds x 10 clients x 500.0 KB,",
        "Time 3 min 5 s",
        "Clients 10",
        "round accuracy loss 1 40.0 % 1.0000 2 80.0 % 0.5000",
        "setup 123.5 KB 0 B train 4.0 MB 5.0 MB total 4.1 MB 5.0 MB FedAvg instead 10.0 MB 10.0 MB",
        "synthesis 1 min 14 s 40.0 % total 3 min 5 s 100.0 %",
        "python 3.11.7 flwr 1.41.0",
        "seed 3",
        "method fgl",
    ):
        assert part in text
    assert "Rejected uploads" not in text
    assert "Resumed" not in text


@pytest.mark.parametrize("summary", [{}, {"strategy": "fedavg", "model_bytes": 200_000}])
def test_fedavg_is_not_set_beside_itself_or_what_is_not_known(tmp_path, summary):
    text = page_of(a_run(tmp_path, **summary)).text
    assert "FedAvg would" not in text
    assert "FedAvg instead" not in text


def test_an_only_upload_is_told_once(tmp_path):
    text = page_of(a_run(tmp_path, uplink_bytes={"total": 123_450, "setup": 123_450})).text
    assert "The one upload 123.5 KB" in text
    assert "Uploaded in all" not in text


def test_report_needs_nothing_from_outside_and_embeds_the_pictures(tmp_path):
    run = a_run(tmp_path)
    illustrate(run)
    page = assert_stands_alone(write_report(run).read_text())
    assert len(page.sources) == 4
    embedded = Image.open(io.BytesIO(base64.b64decode(page.sources[0].partition(",")[2])))
    assert embedded.size == (1000, 620)
    assert (run / "accuracy.png").is_file()
    assert (run / "traffic.png").is_file()


def test_one_round_is_no_curve_even_where_an_old_picture_lies(tmp_path):
    run = a_run(tmp_path, accuracies=(0.9,))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(run / "accuracy.png")
    assert len(page_of(run).sources) == 1
    assert "Accuracy 90.0 % after round 1" in page_of(run).text


def test_a_report_elsewhere_leaves_the_run_alone(tmp_path):
    run = a_run(tmp_path)
    before = sorted(run.iterdir())
    assert write_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert sorted(run.iterdir()) == before
    assert len(Page((tmp_path / "page.html").read_text()).sources) == 2


def test_report_escapes_what_it_shows(tmp_path):
    run = a_run(tmp_path, dataset="<img src=x>", failures=[{"node": 4, "reason": "<b>boom</b>"}])
    html = write_report(run).read_text()
    page = Page(html)
    assert "<img src=x>" not in html
    assert not {"script", "b"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "<b>boom</b>" in page.text


def test_report_of_a_failed_run_says_why_and_who(tmp_path):
    incident = {"node": "7", "phase": "train", "reason": "label 12 is out of range 0..9", "site": "lab"}
    run = a_run(
        tmp_path,
        accuracies=(),
        status="failed",
        error="1 good reply, min-nodes is 2",
        rejected_uploads=[incident] * 3,
        failures=[{"node": 4, "reason": "timed out"}],
    )
    text = page_of(run).text
    assert re.search(r"Failed : 1 good reply, min-nodes is 2", text)
    assert "Accuracy —" in text
    assert "Clients 10 3 rejections, 1 failure" in text
    assert "Rejected uploads node reason 7, site lab, train label 12 is out of range 0..9 (3 times)" in text
    assert "Failures node reason 4 timed out" in text


def test_a_thousand_incidents_are_some_and_a_number(tmp_path):
    failures = [{"node": str(number), "reason": "gone"} for number in range(1000)]
    text = page_of(a_run(tmp_path, failures=failures)).text
    assert text.count(" gone") == 50
    assert "and 950 more" in text


def test_report_says_where_the_run_was_resumed(tmp_path):
    run = RunDirectory.create(tmp_path, "again", {"method": "fgl"})
    run.log({"event": "resumed", "rounds": 0, "uploads": True})
    run.log({"event": "resumed", "rounds": 4, "uploads": True})
    assert re.search(
        r"Resumed before the first round was done \(.* UTC\), and after round 4 \(.* UTC\)\.",
        page_of(run.path).text,
    )


def test_report_of_a_run_that_was_killed_shows_how_far_it_came(tmp_path):
    run = a_run(tmp_path, config={"method": "classifier", "inner-strategy": "fedprox", "dataset": "/x/mine"})
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')
    text = page_of(run).text
    assert "fedprox on mine" in text
    assert "Unfinished" in text
    assert "Accuracy 80.0 % after round 2" in text
    assert "Uploaded in all 4.1 MB" in text


def test_report_wants_a_run_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run directory: it holds no config\.json"):
        write_report(tmp_path)


def test_changed_keys_are_those_other_than_the_methods_defaults():
    # Five local epochs are FGL's default and not FedDDPM's.
    config = {"local-epochs": 5, "seed": 3, "output-dir": "/x", "resume": True, "gone": 1}
    assert changed_keys(config | {"method": "fgl"}) == {"seed"}
    assert changed_keys(config | {"method": "fedddpm"}) == {"seed", "local-epochs"}
    assert changed_keys(config | {"method": "nothing"}) == frozenset()


# Several runs


def test_a_comparison_sets_runs_beside_each_other(tmp_path):
    other = {"method": "classifier", "num-clients": 10, "prompt-template": "<script>alert(1)</script>"}
    runs = [
        a_run(tmp_path, "first", model_bytes=500_000),
        a_run(tmp_path, "second", config=other, accuracies=(0.5, 0.7, 0.9), strategy="fedavg"),
    ]
    path = write_comparison(runs, tmp_path / "page.html")
    page = assert_stands_alone(path.read_text())
    for part in (
        "2 runs compared",
        "first second status completed completed strategy fgl-fedavg fedavg",
        "rounds 2 3 accuracy 80.0 % 90.0 %",
        "sent by clients in all 4.1 MB 4.1 MB",
        "as many rounds of FedAvg 10.0 MB —",
        "setup, sent 123.5 KB 123.5 KB",
        "synthesis 1 min 14 s 1 min 14 s total 3 min 5 s 3 min 5 s",
        "What differs in the configs first second method fgl classifier",
    ):
        assert part in page.text
    assert "prompt-template" not in page.text
    assert page.bold == ["90.0 %"]
    assert len(page.sources) == 2


def test_runs_of_one_name_are_told_apart_and_equal_configs_said_so(tmp_path):
    runs = [a_run(tmp_path / folder, "run") for folder in ("a", "b")]
    text = Page(write_comparison(runs, tmp_path / "page.html").read_text()).text
    assert "a/run b/run status" in text
    assert "What differs in the configs a/run b/run nothing — —" in text


def test_single_rounds_are_compared_by_bytes_alone(tmp_path):
    runs = [a_run(tmp_path, name, accuracies=(0.5,)) for name in ("a", "b")]
    assert len(Page(write_comparison(runs, tmp_path / "page.html").read_text()).sources) == 1


# Listing


def test_runs_are_found_in_the_order_in_which_they_began(tmp_path):
    a_run(tmp_path, "z-first")
    a_run(tmp_path, "a-second")
    RunDirectory.create(tmp_path, "latest-begun", {"method": "fgl"})  # and makes the link `latest`
    (tmp_path / "only-a-log").mkdir()
    (tmp_path / "only-a-log" / "flower.log").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 3}')
    (tmp_path / "notes.txt").touch()
    names = [run.name for run in find_runs(tmp_path)]
    assert names == ["z-first", "a-second", "latest-begun", "only-a-log"]


def test_a_run_knows_what_ran_before_it_has_a_summary(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {"method": "diffusion", "inner-strategy": "scaffold"})
    assert (Run.read(run.path).strategy, Run.read(run.path).primary_metric) == ("scaffold", None)


LISTED = ["completed", "fgl-fedavg", "mine", "10", "2", "accuracy 80.0 %", "4.1 MB", "5.0 MB", "3 min 5 s"]


def fgl(*arguments, cwd):
    command = [sys.executable, "-m", "fgl_app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_fgl_list_prints_a_line_for_each_run_or_json(tmp_path):
    outputs = tmp_path / "outputs"
    name = "a-name-that-is-longer-than-a-line-of-a-terminal-" * 2
    a_run(outputs, name, dataset="/somewhere/mine")
    a_run(outputs, "bad", accuracies=(), status="failed", uplink_bytes={}, downlink_bytes={}, seconds={})
    going = RunDirectory.create(outputs, "going", {"method": "fgl"})
    done = fgl("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:]] == [
        [
            name,
            "completed",
            "fgl-fedavg",
            "mine",
            "10",
            "2",
            "accuracy 80.0 %",
            "4.1 MB",
            "5.0 MB",
            "3 min 5 s",
        ],
        ["bad", "failed", "fgl-fedavg", "digits", "10", "0", "—", "—", "—", "—"],
        ["going", "running", "fgl", "—", "—", "0", "—", "—", "—", "—"],
    ]
    going.close()
    first, *_, last = json.loads(fgl("list", "outputs", "--json", cwd=tmp_path).stdout)
    assert (first["metric"], first["value"], first["uplink_bytes"]) == ("accuracy", 0.8, 4_123_450)
    assert (last["status"], last["uplink_bytes"]) == ("unfinished", None)


def test_fgl_list_of_nothing(tmp_path):
    assert fgl("list", "nowhere", cwd=tmp_path).stderr == (
        "Error: the runs in 'nowhere' cannot be listed: No such file or directory\n"
    )
    assert fgl("list", "nowhere", cwd=tmp_path).returncode == 2
    assert fgl("list", ".", cwd=tmp_path).returncode == 0
    assert fgl("list", ".", "--json", cwd=tmp_path).stdout == "[]\n"


def test_fgl_report_writes_one_page_and_prints_its_path(tmp_path):
    run = a_run(tmp_path, "one")
    done = fgl("report", "one", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{run / 'report.html'}\n")
    a_run(tmp_path, "two")
    done = fgl("report", "one", "two", cwd=tmp_path)
    assert done.stdout == f"{tmp_path / 'comparison.html'}\n"
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    (tmp_path / "not-begun").mkdir()
    done = fgl("report", "one", "not-begun", "two", "--out", "page.html", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ("Note: not-begun is skipped: it has no config.json, so no run started there\n")
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is no run directory: it holds no config.json"),
        (["one", "nowhere"], "nowhere is no run directory: it holds no config.json"),
        (["one", "--out", "no/page.html"], "the page cannot be written: No such file or directory"),
    ],
)
def test_fgl_report_says_what_is_wrong(tmp_path, arguments, sentence):
    a_run(tmp_path, "one")
    done = fgl("report", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")
