import numpy as np
import pytest
import torch
import transformers

from fgl_app.algorithms.captions import caption_images, choose_examples
from fgl_app.client.state import load_captions, save_captions
from fgl_app.config import parse_config
from fgl_app.models.captioners import check_captioner, load_captioner

CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "red", "green", "picture", "of"]
SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
EYE = {**SMALL, "image_size": 16, "patch_size": 8}
TOKENS = {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
OPT = {
    **{"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 16},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64},
}
SQUARE = {"height": 16, "width": 16}


def blip():
    config = transformers.BlipConfig(
        text_config={**SMALL, **TOKENS, "encoder_hidden_size": 8, "sep_token_id": 3, "projection_dim": 8},
        vision_config={**EYE, "projection_dim": 8},
        image_text_hidden_size=8,
        projection_dim=8,
    )
    eye = transformers.BlipImageProcessor(size=SQUARE)
    return transformers.BlipForConditionalGeneration(config), transformers.BlipProcessor(eye, tokenizer())


def git():
    config = transformers.GitConfig(vision_config=EYE, **SMALL, **TOKENS)
    eye = transformers.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    return transformers.GitForCausalLM(config), transformers.GitProcessor(eye, tokenizer())


def blip_2():
    config = transformers.Blip2Config(
        vision_config=EYE,
        qformer_config={**SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 8},
        text_config={"model_type": "opt", **OPT, **TOKENS},
        num_query_tokens=2,
        image_token_index=WORDS.index("[ENC]"),
    )
    eye = transformers.BlipImageProcessor(size=SQUARE)
    processor = transformers.Blip2Processor(eye, tokenizer(), num_query_tokens=2)
    return transformers.Blip2ForConditionalGeneration(config), processor


def florence_2():
    words = [*WORDS, "<s>", "</s>", "<image>", "what", "does", "the", "image", "describe", "?"]
    number = {word: i for i, word in enumerate(words)}
    one_stage = {"depths": (1,), "patch_size": (3,), "patch_stride": (8,), "patch_padding": (1,)}
    config = transformers.Florence2Config(
        vision_config={
            **one_stage,
            **{"patch_prenorm": (False,), "embed_dim": (8,), "num_heads": (2,), "num_groups": (2,)},
            **{"window_size": 2, "projection_dim": 8},
        },
        text_config={
            **{"model_type": "bart", "vocab_size": len(words), "d_model": 8, "max_position_embeddings": 64},
            **{"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16},
            **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16},
            **{"bos_token_id": number["<s>"], "eos_token_id": number["</s>"], "pad_token_id": 0},
            **{"decoder_start_token_id": number["</s>"], "forced_eos_token_id": number["</s>"]},
        },
        image_token_id=number["<image>"],
    )
    words_of_its_own = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    # Four patches and their mean.
    eye = transformers.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE, image_seq_length=5)
    torch.manual_seed(3)
    model = transformers.Florence2ForConditionalGeneration(config)
    # With weights as small as they begin it says the same of every image: nothing.
    for weight in model.parameters():
        weight.data *= 20 if weight.dim() > 1 else 1
    names = ["input_ids", "attention_mask"]
    speaker = transformers.BertTokenizer(vocab=number, model_input_names=names, **words_of_its_own)
    return model, transformers.Florence2Processor(eye, speaker)


def tokenizer():
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def save_captioner(build, folder):
    torch.manual_seed(0)
    for part in build():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8))


@pytest.mark.parametrize(
    ("build", "prompt"), [(blip, ""), (git, ""), (blip_2, ""), (florence_2, "<CAPTION>")]
)
def test_any_image_to_text_model_writes_captions(build, prompt, images, tmp_path):
    folder = save_captioner(build, tmp_path)
    write = load_captioner(folder, prompt, CPU)
    captions = write(images)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    for image, caption in zip(images, captions, strict=True):
        inputs = processor(images=image.permute(1, 2, 0).numpy(), text=prompt or None, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        assert caption == processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        assert set(caption.replace("?", " ").split()) <= processor.tokenizer.get_vocab().keys()
    assert build is not florence_2 or len(set(captions)) == 3
    grey = write(images[:, :1])
    assert len(grey) == 3


def test_a_prompt_is_continued_and_left_out(images, tmp_path):
    write = load_captioner(save_captioner(blip, tmp_path), "a picture of", CPU)
    assert not any(caption.startswith("a picture of") for caption in write(images))


def test_strokes_are_described_in_any_size():
    digits = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    digits[0, 0, 2:14, 7:9] = 255
    digits[1, 0, 3:5, 2:14] = 255
    first, second = load_captioner("strokes", "", CPU)(digits)
    assert "skinny" in first
    assert "skinny" not in second


def test_an_image_is_captioned_once_and_every_batch_is_kept(images):
    seen, kept = [], []

    def write(batch):
        seen.append(len(batch))
        return [f"caption {int(image.sum())}" for image in batch]

    known = {}
    again = torch.cat([images, images[:1]])
    captions = caption_images(again, write, known, batch_size=2, callback=lambda n: kept.append(len(known)))
    assert captions[3] == captions[0] == f"caption {int(images[0].sum())}"
    assert (seen, kept) == ([2, 1], [2, 3])
    assert caption_images(again, write, known, batch_size=2) == captions
    assert seen == [2, 1]


def test_captions_are_kept_by_client_and_captioner(tmp_path):
    config = parse_config({"captioner": "some/model"})
    assert load_captions(tmp_path, config) == {}
    save_captions(tmp_path, config, {"key": "a red picture"})
    assert load_captions(tmp_path, config) == {"key": "a red picture"}
    assert load_captions(tmp_path / "other", config) == {}
    assert load_captions(tmp_path, parse_config({"captioner": "other/model"})) == {}


def test_so_many_of_each_class_are_described():
    labels = torch.tensor([0] * 10 + [1] * 2)
    chosen = choose_examples(labels, 3, torch.Generator().manual_seed(0))
    assert labels[chosen].tolist() == [0, 0, 0, 1, 1]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert choose_examples(labels, 0, torch.Generator()).tolist() == list(range(12))


def test_a_captioner_that_is_none_is_refused(tmp_path):
    check_captioner("strokes")
    check_captioner("owner/name")
    for name in ("nothing", str(tmp_path)):
        with pytest.raises(ValueError, match="captioner must be 'strokes', the folder of an image-to-text"):
            check_captioner(name)


def test_a_captioner_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="captioner 'owner/name' is neither in the hub's cache nor"):
        load_captioner("owner/name", "", CPU)
