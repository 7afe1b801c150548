import numpy as np
import pytest
import torch
import transformers

from fgl_app.models.captioners import check_captioner, load_captioner
from tests.tiny_captioners import blip, blip_2, florence_2, git, save_captioner

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8))


@pytest.mark.parametrize(
    ("build", "prompt"), [(blip, ""), (git, ""), (blip_2, ""), (florence_2, "<CAPTION>")]
)
def test_image_to_text_models_write_captions(build, prompt, images, tmp_path):
    folder = save_captioner(build, tmp_path)
    captioner = load_captioner(folder, prompt, CPU)
    captions = captioner(images)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    for image, caption in zip(images, captions, strict=True):
        inputs = processor(images=image.permute(1, 2, 0).numpy(), text=prompt or None, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        assert caption == processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        assert set(caption.replace("?", " ").split()) <= processor.tokenizer.get_vocab().keys()
    assert build is not florence_2 or len(set(captions)) == 3
    grey = captioner(images[:, :1])
    assert len(grey) == 3


def test_the_prompt_is_removed_from_the_caption(images, tmp_path):
    captioner = load_captioner(save_captioner(blip, tmp_path), "a picture of", CPU)
    assert not any(caption.startswith("a picture of") for caption in captioner(images))


def test_strokes_are_described_in_any_size():
    digits = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    digits[0, 0, 2:14, 7:9] = 255
    digits[1, 0, 3:5, 2:14] = 255
    first, second = load_captioner("strokes", "", CPU)(digits)
    assert "skinny" in first
    assert "skinny" not in second


def test_an_unknown_captioner_is_rejected(tmp_path):
    check_captioner("strokes")
    check_captioner("owner/name")
    for name in ("nothing", str(tmp_path)):
        with pytest.raises(ValueError, match="captioner must be 'strokes', the folder of an image-to-text"):
            check_captioner(name)


def test_an_unreachable_captioner_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="captioner 'owner/name' is neither in the hub's cache nor"):
        load_captioner("owner/name", "", CPU)
