import pytest

from fgl_app.metrics.specs import KEY_FIGURES, METRICS, PRIMARY_METRICS, format_metrics


def test_keys_are_unique_and_in_display_order():
    assert list(METRICS) == [
        *("accuracy", "loss", "frechet_distance", "precision", "recall"),
        *("label_agreement", "downstream_accuracy"),
    ]
    assert all(spec.key == key for key, spec in METRICS.items())


def test_key_figures_are_the_primary_metrics_and_those_with_an_explanation():
    assert [spec.key for spec in PRIMARY_METRICS] == ["accuracy", "frechet_distance"]
    assert [spec.key for spec in KEY_FIGURES] == [
        *("accuracy", "frechet_distance", "label_agreement", "downstream_accuracy")
    ]


def test_primary_metrics_have_a_curve_title():
    assert all(spec.curve_title for spec in PRIMARY_METRICS)


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"accuracy": 0.9634, "loss": 0.1431}, "accuracy 96.3 %, loss 0.143"),
        (
            {"frechet_distance": 7.812, "label_agreement": 0.5},
            "Frechet distance 7.81, label agreement 50.0 %",
        ),
        ({"frechet_distance": 123.97}, "Frechet distance 124"),
        ({}, ""),
    ],
)
def test_metrics_as_text(metrics, text):
    assert format_metrics(metrics) == text
