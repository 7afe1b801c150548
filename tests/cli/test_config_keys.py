"""`fgl presets`, `fgl config` and the presets."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fgl_app.config import ConfigError, config_keys, presets
from fgl_app.launch.config_sources import resolve_config
from tests.in_process import fgl

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
NOW = datetime(2026, 11, 21, 10, 15, tzinfo=UTC)


def test_config_lists_every_key_with_its_default():
    done = fgl("config")
    assert done.exit_code == 0
    listed = {line.split()[0]: line for line in done.stdout.splitlines() if line and line[0] != " "}
    assert listed.keys() == {"key", *config_keys()}
    assert '"dirichlet"' in listed["partitioning"]


def test_presets_are_listed_with_what_they_need():
    done = fgl("presets")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    for file in FILES:
        description, needs = presets.describe_preset(file)
        assert description
        assert needs
        assert file.stem in text


@pytest.mark.parametrize("preset", FILES, ids=lambda file: file.stem)
def test_presets_are_valid(preset, tmp_path):
    resolve_config([preset], [], None, tmp_path, NOW)


def test_presets_and_a_file_add_up_and_the_later_wins(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("seed = 7\nnum-server-rounds = 3\n")
    files = [*map(presets.preset_file, ("imagenette", "dirichlet-0.5", "five-rounds-fine-tuned")), own]
    config = resolve_config(files, ["seed=8"], None, tmp_path, NOW)
    assert (config.dirichlet_alpha, config.server_epochs) == (0.5, 5)
    assert (config.image_size, config.num_server_rounds, config.seed) == (224, 3, 8)


def test_an_unknown_preset_is_an_error_with_the_known_ones(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "oneshot.toml").write_text("seed = 1\n")
    monkeypatch.setattr(presets, "_PACKAGE", tmp_path)
    assert presets.preset_file("oneshot") == tmp_path / "configs" / "oneshot.toml"
    with pytest.raises(
        ConfigError, match=r"unknown preset 'twoshot'; did you mean 'oneshot'\? Known presets: oneshot"
    ):
        presets.preset_file("twoshot")
    with pytest.raises(ConfigError, match="unknown preset 'many'; known presets: oneshot"):
        presets.preset_file("many")
