from fgl_app.results.comparison import write_comparison
from tests.html_page import Page, read_self_contained
from tests.runs import make_run


def test_a_comparison_has_results_bytes_seconds_and_differences(tmp_path):
    other = {"method": "classifier", "num-clients": 10, "prompt-template": "<script>alert(1)</script>"}
    runs = [
        make_run(tmp_path, "first", model_bytes=500_000),
        make_run(tmp_path, "second", config=other, accuracies=(0.5, 0.7, 0.9), strategy="fedavg"),
    ]
    page = read_self_contained(write_comparison(runs, tmp_path / "page.html"))
    for part in (
        "2 runs compared",
        "first second status completed completed strategy fgl-fedavg fedavg",
        "rounds 2 3 accuracy 80.0 % 90.0 %",
        "total sent by clients 4.1 MB 4.1 MB",
        "FedAvg (calculated) 10.0 MB —",
        "setup, sent 123.5 KB 123.5 KB",
        "synthesis 1 min 14 s 1 min 14 s total 3 min 5 s 3 min 5 s",
        "Differences between the configs first second method fgl classifier",
    ):
        assert part in page.text
    assert "prompt-template" not in page.text
    assert page.best == ["90.0 %"]
    assert len(page.sources) == 2


def test_the_lower_frechet_distance_is_the_best(tmp_path):
    runs = [
        make_run(tmp_path, str(distance), accuracies=(0,), metrics={"frechet_distance": distance})
        for distance in (7.5, 40.0)
    ]
    page = Page(write_comparison(runs, tmp_path / "page.html").read_text())
    assert "Frechet distance 7.5 40" in page.text
    assert page.best == ["7.5"]


def test_runs_of_one_name_have_their_folders_and_equal_configs_no_difference(tmp_path):
    runs = [make_run(tmp_path / folder, "run", accuracies=(0.5,)) for folder in ("a", "b")]
    page = Page(write_comparison(runs, tmp_path / "page.html").read_text())
    assert "a/run b/run status" in page.text
    assert "Differences between the configs a/run b/run none — —" in page.text
    assert len(page.sources) == 1, "single rounds are compared by bytes only"
