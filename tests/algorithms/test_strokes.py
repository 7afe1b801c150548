"""The stroke measures are correct for drawings of known width, slant and shape."""

import math

import pytest
import torch
from torch import Tensor

from fgl_app.algorithms.strokes import (
    ASPECT_WORDS,
    SLANT_WORDS,
    WIDTH_WORDS,
    StrokeMeasures,
    measure_strokes,
    stroke_captions,
)


def draw_bar(width: float, slant: float, length: float = 20.0, size: int = 33) -> Tensor:
    """Draw a straight stroke through the centre, anti-aliased over one pixel; slant in degrees."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = math.radians(slant)
    along = (x * math.sin(angle) - y * math.cos(angle)).clamp(-length / 2, length / 2)
    distance = torch.hypot(x - along * math.sin(angle), y + along * math.cos(angle))
    return (width / 2 - distance + 0.5).clamp(0, 1)[None, None]


@pytest.mark.parametrize("slant", [-40.0, -15.0, 0.0, 15.0, 40.0])
def test_slant_of_a_bar_is_its_angle(slant: float) -> None:
    # The round pen and the pixels reduce the slant of a bar with width / length = 1/8 slightly.
    assert measure_strokes(draw_bar(2.5, slant)).slant.item() == pytest.approx(slant, abs=1.5)


@pytest.mark.parametrize("width", [1.5, 2.5, 3.5])
@pytest.mark.parametrize("slant", [0.0, 25.0])
def test_width_of_a_bar_is_its_width(width: float, slant: float) -> None:
    # Twice the area over the outline is width / (1 + width / length): 7 % to 15 % below the width here.
    assert measure_strokes(draw_bar(width, slant)).width.item() == pytest.approx(width, rel=0.2)


def test_width_grows_with_the_pen() -> None:
    bars = torch.cat([draw_bar(width, slant=10.0) for width in (1.2, 1.8, 2.4, 3.0, 3.6, 4.2)])
    assert (measure_strokes(bars).width.diff() > 0).all()


def test_mirrored_image_has_the_opposite_slant_and_the_same_rest() -> None:
    image = draw_bar(2.0, 20.0)
    measures, mirrored = measure_strokes(image), measure_strokes(image.flip(3))
    torch.testing.assert_close(mirrored.slant, -measures.slant, atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored.aspect, measures.aspect)


def test_aspect_is_width_over_height() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 6:26, 11:21] = 1.0
    assert measure_strokes(image).aspect.item() == pytest.approx(0.5)
    assert measure_strokes(image.transpose(2, 3)).aspect.item() == pytest.approx(2.0)


def test_measures_do_not_depend_on_padding_or_batch() -> None:
    image = draw_bar(2.5, 12.0)
    alone = measure_strokes(image[:, :, 2:-2, 2:-2])
    together = measure_strokes(torch.cat([draw_bar(4.0, -30.0), image]))
    for name in ("width", "slant", "aspect"):
        torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[1], atol=1e-3, rtol=1e-4)


def test_an_image_without_ink_measures_zero() -> None:
    measures = measure_strokes(torch.zeros(2, 1, 28, 28))
    for name in ("width", "slant", "aspect"):
        torch.testing.assert_close(getattr(measures, name), torch.zeros(2))


def test_no_images_give_no_captions() -> None:
    assert stroke_captions(measure_strokes(torch.zeros(0, 1, 28, 28))) == []


def test_captions_describe_the_drawing() -> None:
    images = torch.cat([draw_bar(1.4, 0.0), draw_bar(4.4, 35.0), draw_bar(2.0, -35.0)])
    thin_upright, thick_right, left = stroke_captions(measure_strokes(images))
    assert thin_upright == "hairline strokes, upright, skinny"
    assert thick_right.startswith("heavy strokes, extremely slanted right")
    assert "extremely slanted left" in left


def test_each_measure_changes_its_own_words() -> None:
    def caption(width: float, slant: float, aspect: float) -> str:
        return stroke_captions(StrokeMeasures(*(torch.tensor([v]) for v in (width, slant, aspect))))[0]

    assert caption(2.3, 0.0, 0.7) == "medium strokes, upright, regular"
    assert caption(3.2, 0.0, 0.7) == "very thick strokes, upright, regular"
    assert caption(2.3, 10.0, 0.7) == "medium strokes, slanted right, regular"
    assert caption(2.3, -10.0, 0.7) == "medium strokes, slanted left, regular"
    assert caption(2.3, 0.0, 0.4) == "medium strokes, upright, narrow"


@pytest.mark.parametrize(
    ("field", "words", "low", "high"),
    [
        ("width", WIDTH_WORDS, 0.5, 6.0),
        ("slant", SLANT_WORDS, -50.0, 60.0),
        ("aspect", ASPECT_WORDS, 0.1, 1.5),
    ],
)
def test_a_rising_measure_goes_through_all_its_words_in_order(
    field: str, words: tuple[str, ...], low: float, high: float
) -> None:
    rising = torch.linspace(low, high, 400)
    fixed = torch.ones(400)
    values = {"width": fixed, "slant": fixed, "aspect": fixed, field: rising}
    position = ("width", "slant", "aspect").index(field)
    seen = [caption.split(", ")[position] for caption in stroke_captions(StrokeMeasures(**values))]
    assert list(dict.fromkeys(seen)) == list(words)


@pytest.mark.parametrize("shape", [(28, 28), (4, 28, 28), (4, 3, 28, 28)])
def test_a_wrong_shape_is_rejected_with_the_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must have the shape \(N, 1, H, W\), but got") as error:
        measure_strokes(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_integers_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"floating point with values in .*, but got torch.uint8"):
        measure_strokes(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


@pytest.mark.parametrize("value", [-0.5, 255.0, float("nan")])
def test_values_outside_the_range_are_rejected(value: float) -> None:
    image = draw_bar(2.0, 0.0)
    image[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="images must have values in"):
        measure_strokes(image)
