from fgl_app.client.state import load_captions, save_captions
from fgl_app.config import parse_config


def test_captions_are_stored_by_client_and_captioner(tmp_path):
    config = parse_config({"captioner": "some/model"})
    assert load_captions(tmp_path, config) == {}
    save_captions(tmp_path, config, {"key": "a red picture"})
    assert load_captions(tmp_path, config) == {"key": "a red picture"}
    assert load_captions(tmp_path / "other", config) == {}
    assert load_captions(tmp_path, parse_config({"captioner": "other/model"})) == {}
