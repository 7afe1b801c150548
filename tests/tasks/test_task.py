import pytest

from fgl_app.config import parse_config
from fgl_app.tasks import make_task

METRICS = {
    "classifier": {"accuracy": 0.9634, "loss": 0.1431},
    "fedddpm": {"frechet_distance": 7.81, "precision": 0.6, "recall": 0.7, "label_agreement": 0.93},
}


def task_of(method):
    return make_task(parse_config({"method": method, "device": "cpu"}), ("a", "b"), 1)


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("classifier", "accuracy 96.3 %, loss 0.143"),
        ("fedddpm", "Frechet distance 7.81, label agreement 93.0 %"),
    ],
)
def test_the_log_text_has_the_logged_metrics(method, text):
    assert task_of(method).log_text(METRICS[method]) == text


def test_the_log_text_skips_a_metric_that_was_not_computed():
    assert task_of("fedddpm").log_text({"frechet_distance": 7.81}) == "Frechet distance 7.81"


@pytest.mark.parametrize(("method", "worse", "better"), [("classifier", 0.5, 0.75), ("fedddpm", 40.0, 7.5)])
def test_the_score_is_higher_for_the_better_model(method, worse, better):
    task = task_of(method)
    scores = [task.score({task.primary_metric: value}) for value in (worse, better)]
    assert scores[0] < scores[1]
    assert [abs(score) for score in scores] == [worse, better]
