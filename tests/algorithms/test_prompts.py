import pytest

from fgl_app.algorithms.prompts import Prompt, write_prompts

NAMES = ("cat", "dog", "owl")


def test_class_prompts_count_the_examples_of_each_class_held():
    assert write_prompts("a {label}", [2, 0, 2], NAMES) == [Prompt("a cat", 0, 1), Prompt("a owl", 2, 2)]


def test_instance_prompts_keep_equal_captions_once():
    prompts = write_prompts("{label}, {caption}", [1, 1, 1, 0], NAMES, captions=["big", "big", "red", "big"])
    assert prompts == [Prompt("cat, big", 0, 1), Prompt("dog, big", 1, 2), Prompt("dog, red", 1, 1)]


def test_every_example_needs_a_caption():
    with pytest.raises(ValueError, match="zip"):
        write_prompts("{label} {caption}", [0, 1], NAMES, captions=["one"])
