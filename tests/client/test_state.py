"""Files of a client between rounds."""

import pytest
import torch

from fgl_app.client.state import (
    load_captions,
    load_control,
    load_local_model,
    run_folder,
    save_captions,
    save_control,
    save_local_model,
)
from fgl_app.config import parse_config


def test_a_variate_is_kept_until_the_server_accepts_the_next(tmp_path):
    folder = run_folder(tmp_path, "0a1b")
    assert load_control(folder, 0) is None
    save_control(folder, 1, {"w": torch.arange(3.0)})
    save_control(folder, 2, {"w": torch.zeros(3)})
    # The server did not accept round 2: its variate is deleted, and that of round 1 stays.
    assert torch.equal(load_control(folder, 1)["w"], torch.arange(3.0))
    with pytest.raises(FileNotFoundError, match=r"state of round 2 is not in .*run-0a1b; keep"):
        load_control(folder, 2)


@pytest.mark.parametrize("token", ["", "..", "a/b", "../../etc", "A1"])
def test_a_token_of_the_server_cannot_name_another_folder(tmp_path, token):
    with pytest.raises(ValueError, match="hexadecimal digits"):
        run_folder(tmp_path, token)


def test_a_local_model_and_its_loss_belong_to_a_run(tmp_path):
    folder = run_folder(tmp_path, "0a1b")
    assert load_local_model(folder) is None
    save_local_model(folder, {"w": torch.arange(3.0)}, 0.1 + 0.2)
    model, loss = load_local_model(folder)
    assert torch.equal(model["w"], torch.arange(3.0))
    assert loss == 0.1 + 0.2
    assert load_local_model(run_folder(tmp_path, "ffff")) is None


def test_captions_are_stored_by_client_and_captioner(tmp_path):
    config = parse_config({"captioner": "some/model"})
    assert load_captions(tmp_path, config) == {}
    save_captions(tmp_path, config, {"key": "a red picture"})
    assert load_captions(tmp_path, config) == {"key": "a red picture"}
    assert load_captions(tmp_path / "other", config) == {}
    assert load_captions(tmp_path, parse_config({"captioner": "other/model"})) == {}
