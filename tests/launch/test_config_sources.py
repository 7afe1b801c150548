"""The config of a run from files, overrides and options."""

from datetime import UTC, datetime

import pytest

from fgl_app.config import ConfigError
from fgl_app.launch.config_sources import parse_override, resolve_config

NOW = datetime(2026, 11, 21, 10, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=7", ("seed", 7)),
        ("learning-rate=1e-3", ("learning-rate", 0.001)),
        ("dataset=digits", ("dataset", "digits")),
        ("run-name=2026", ("run-name", "2026")),
        ("prompt-template=a = {label}", ("prompt-template", "a = {label}")),
        ("prompt-template=", ("prompt-template", "")),
        # Left as text: the config's error names the rule.
        ("seed=seven", ("seed", "seven")),
        ("seed=[1]", ("seed", "[1]")),
        ("sede=1", ("sede", "1")),
    ],
)
def test_values_of_string_keys_are_raw_and_others_are_toml(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["seed", "=1", "", "-seed"])
def test_an_argument_that_is_no_assignment_is_rejected(text):
    with pytest.raises(ConfigError, match=f"KEY=VALUE, without spaces around '=', got '{text}'"):
        parse_override(text)


def test_existing_folders_become_absolute_paths(tmp_path):
    for folder in ("mine", "cnn", "embedded"):
        (tmp_path / folder).mkdir()
    config = resolve_config((), ["generator=mine", "classifier=./mine"], None, tmp_path, NOW)
    assert config.generator == config.classifier == str(tmp_path / "mine")
    config = resolve_config((), ["classifier=cnn"], None, tmp_path, NOW)
    assert (config.classifier, config.generator) == ("cnn", "embedded")
    assert resolve_config((), ["generator=a/b"], None, tmp_path, NOW).generator == "a/b"


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("seed = 1\nbatch-size = 32\nguidance-scale = 2\n")
    config = resolve_config([file], ["seed=2", "seed=3"], None, tmp_path, NOW)
    assert (config.seed, config.batch_size, config.guidance_scale) == (3, 32, 2.0)


def test_the_output_directory_is_relative_to_the_users_and_the_run_has_a_name(tmp_path):
    config = resolve_config((), [], None, tmp_path, NOW)
    assert config.output_dir == str(tmp_path / "outputs")
    assert config.run_name == "20261121T101500-fgl"
    (tmp_path / "outputs" / config.run_name).mkdir(parents=True)
    assert resolve_config((), [], None, tmp_path, NOW).run_name == "20261121T101500-fgl-2"
    baseline = resolve_config((), ["method=classifier", "inner-strategy=fedprox"], None, tmp_path, NOW)
    assert baseline.run_name == "20261121T101500-fedprox"


@pytest.mark.parametrize(
    ("overrides", "option", "expected"),
    [([], None, 5), ([], 3, 3), (["num-clients=7"], None, 7), (["num-clients=7"], 7, 7)],
)
def test_the_number_of_clients(tmp_path, overrides, option, expected):
    assert resolve_config((), overrides, option, tmp_path, NOW).num_clients == expected


def test_different_numbers_of_clients_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="--clients 3 and config key 'num-clients'"):
        resolve_config((), ["num-clients=7"], 3, tmp_path, NOW)
