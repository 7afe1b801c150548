import pytest

from fgl_app.models.generators import generator_family, generator_source


def test_a_hub_id_can_have_a_revision(monkeypatch):
    received = {}

    def load_config(**arguments):
        received.update(arguments)
        return {"_class_name": "StableDiffusionPipeline"}

    monkeypatch.setattr("diffusers.DiffusionPipeline.load_config", load_config)
    assert generator_family("owner/name@fp16") == "StableDiffusionPipeline"
    assert received == {"pretrained_model_name_or_path": "owner/name", "revision": "fp16"}


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("no-such-name", "generator must be 'embedded', a folder or a hub id"),
        ("./missing/folder", "generator must be 'embedded', a folder or a hub id"),
    ],
)
def test_an_unknown_generator_is_rejected(generator, message):
    with pytest.raises(ValueError, match=message):
        generator_source(generator)


def test_a_folder_without_a_pipeline_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"is not a diffusers pipeline: it has no model_index.json"):
        generator_source(str(tmp_path))


def test_a_pipeline_of_another_family_is_rejected(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="is a FluxPipeline; it must be one of StableDiffusionPipeline"):
        generator_source(str(tmp_path))


def test_hub_ids_are_returned_unchanged():
    assert generator_source("owner/name") == "owner/name"
