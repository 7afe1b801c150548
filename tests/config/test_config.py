import tomllib
from pathlib import Path

import pytest

from fgl_app.cli.config_keys import configuration_page
from fgl_app.config import ConfigError, RunConfig, config_keys, parse_config
from fgl_app.config.reference import GROUPS, key_groups

ROOT = Path(__file__).parents[2]


def test_pyproject_has_every_key_with_its_default():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert table == config_keys()
    assert {key: type(value) for key, value in table.items()} == {
        key: type(value) for key, value in config_keys().items()
    }


def test_every_key_has_a_description():
    assert all(field.description for field in RunConfig.model_fields.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"guidence-scale": 2.0}, "unknown config key 'guidence-scale'; did you mean 'guidance-scale'?"),
        ({"zzz": 2.0}, "unknown config key 'zzz'; `fgl config` lists the keys"),
        (
            {"method": "fed"},
            "config key 'method' must be one of fgl, classifier, fedddpm, fedddpm-plus, diffusion, got",
        ),
        (
            {"inner-strategy": "x"},
            "config key 'inner-strategy' must be one of fedavg, fedprox, fedadam, fedyogi, scaffold, "
            "centralized, local-only, auxiliary-only, got 'x'",
        ),
        (
            {"partitioning": "by-name"},
            "must be one of iid, dirichlet, pathological, size, domain, sites, got 'by-name'",
        ),
        ({"local-epochs": "abc"}, "config key 'local-epochs' must be a valid integer, got 'abc'"),
        ({"local-epochs": 1.5}, "config key 'local-epochs' must be a valid integer, got 1.5"),
        ({"local-epochs": True}, "config key 'local-epochs' must be a valid integer, got True"),
        ({"local-epochs": -1}, "config key 'local-epochs' must be greater than or equal to 0, got -1"),
        ({"dirichlet-alpha": 0.0}, "config key 'dirichlet-alpha' must be greater than 0, got 0.0"),
        ({"dirichlet-alpha": -1.0}, "config key 'dirichlet-alpha' must be greater than 0, got -1.0"),
        ({"learning-rate": float("nan")}, "config key 'learning-rate' must be a finite number, got nan"),
        ({"seed": -1}, "config key 'seed' must be greater than or equal to 0, got -1"),
        ({"device": "tpu"}, "config key 'device' must match pattern"),
        ({"run-name": "../escape"}, "config key 'run-name' must match pattern"),
        ({"generator": ""}, "config key 'generator' must have at least 1 character, got ''"),
        ({"guidance-scale": 0.5}, "config key 'guidance-scale' must be greater than or equal to 1, got 0.5"),
        ({"inner-strategy": "centralized"}, "needs method 'classifier' or 'diffusion', got 'fgl'"),
        (
            {"inner-strategy": "auxiliary-only", "method": "diffusion"},
            "'auxiliary-only' is a baseline and needs method 'fedddpm', got 'diffusion'",
        ),
        ({"num-clients": 3, "min-nodes": 4}, "min-nodes must be at most num-clients (3), got 4"),
        (
            {"prompt-template": "a digit"},
            "prompt-template must contain {label} and no other field with prompts 'class', got 'a digit'",
        ),
        ({"prompt-template": "{label} {caption}"}, "prompt-template must contain {label} and no other"),
        ({"prompt-template": "{label}", "prompts": "instance"}, "must contain {label} and {caption} and no"),
        ({"prompt-template": "{label} {"}, "prompt-template must contain {label}"),
        ({"prompt-template": "{{label}}"}, "prompt-template must contain {label}"),
        ({"prompt-template": "{label.x}{label}"}, "prompt-template must contain {label}"),
        ({"prompt-template": "{label:>99999999}"}, "prompt-template must contain {label}"),
        ({"run-name": "latest"}, "run-name must not be 'latest'"),
        ({"dataset": "none"}, "dataset 'none' needs partitioning 'sites'"),
        ({"dataset": "none", "partitioning": "sites"}, "needs class-subset, the names of all classes"),
        ({"dataset": "none", "partitioning": "sites", "method": "fedddpm"}, "needs method 'fgl'"),
        (
            {"partitioning": "sites", "method": "classifier", "inner-strategy": "centralized"},
            "inner-strategy 'centralized' cannot have partitioning 'sites'",
        ),
    ],
)
def test_an_invalid_value_is_reported_with_its_rule(values, sentence):
    with pytest.raises(ConfigError) as raised:
        parse_config(values)
    assert sentence in str(raised.value)


def test_all_errors_are_reported_at_once():
    with pytest.raises(ConfigError) as raised:
        parse_config({"seed": "x", "method": "y"})
    assert "'seed'" in str(raised.value)
    assert "'method'" in str(raised.value)


def test_float_keys_accept_integers():
    assert parse_config({"learning-rate": 1}).learning_rate == 1.0


def test_the_default_template_depends_on_dataset_and_prompts():
    assert parse_config({}).template == "a handwritten digit {label}"
    assert "{caption}" in parse_config({"prompts": "instance"}).template
    assert parse_config({"prompt-template": "my {label}"}).template == "my {label}"
    assert parse_config({"dataset": "photos"}).template == "{label}, real world images, high resolution"


def test_the_label_of_a_run():
    assert parse_config({}).run_label == "fgl"
    assert parse_config({"method": "classifier", "inner-strategy": "fedprox"}).run_label == "fedprox"
    assert parse_config({"method": "fedddpm", "inner-strategy": "fedprox"}).run_label == "fedddpm"
    only = parse_config({"method": "fedddpm", "inner-strategy": "auxiliary-only"})
    assert only.run_label == "auxiliary-only"


def test_defaults_depend_on_the_method_and_given_values_win():
    assert parse_config({}).server_epochs == 0
    assert parse_config({"method": "fedddpm"}).server_epochs > 0
    assert parse_config({"method": "fedddpm", "server-epochs": 0}).server_epochs == 0
    rounds = [
        parse_config({"method": method}).num_server_rounds for method in ("fgl", "diffusion", "fedddpm")
    ]
    # The set-up is one more round: the number of ordinary rounds is the same with it.
    assert rounds[0] == 1
    assert rounds[2] == rounds[1] + 1
    resolved = parse_config({"method": "fedddpm"})
    assert parse_config(resolved.to_run_config()) == resolved


def test_the_reference_has_every_key_once_in_order():
    groups = key_groups()
    assert [key.key for keys in groups.values() for key in keys] == list(config_keys())
    assert list(groups) == list(GROUPS.values())
    assert [keys[0].key for keys in groups.values()] == list(GROUPS)


def test_the_configuration_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page(), "run `make docs`, or `fgl config --markdown > docs/configuration.md`"
    # A bar inside a cell would end the cell.
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4, 5}
