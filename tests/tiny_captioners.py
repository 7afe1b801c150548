"""Randomly initialised image-to-text models of each family: real components, 16 x 16 pixels."""

import torch
import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "red", "green", "picture", "of"]
SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
TOKENS = {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
OPT = {
    **{"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 16},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64},
}
SQUARE = {"height": 16, "width": 16}


def blip():
    config = transformers.BlipConfig(
        text_config={**SMALL, **TOKENS, "encoder_hidden_size": 8, "sep_token_id": 3, "projection_dim": 8},
        vision_config={**VISION, "projection_dim": 8},
        image_text_hidden_size=8,
        projection_dim=8,
    )
    image_processor = transformers.BlipImageProcessor(size=SQUARE)
    return transformers.BlipForConditionalGeneration(config), transformers.BlipProcessor(
        image_processor, tokenizer()
    )


def git():
    config = transformers.GitConfig(vision_config=VISION, **SMALL, **TOKENS)
    image_processor = transformers.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    return transformers.GitForCausalLM(config), transformers.GitProcessor(image_processor, tokenizer())


def blip_2():
    config = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config={**SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 8},
        text_config={"model_type": "opt", **OPT, **TOKENS},
        num_query_tokens=2,
        image_token_index=WORDS.index("[ENC]"),
    )
    image_processor = transformers.BlipImageProcessor(size=SQUARE)
    processor = transformers.Blip2Processor(image_processor, tokenizer(), num_query_tokens=2)
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
    special_tokens = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    # Four patches and their mean.
    image_processor = transformers.CLIPImageProcessor(size=SQUARE, crop_size=SQUARE, image_seq_length=5)
    torch.manual_seed(3)
    model = transformers.Florence2ForConditionalGeneration(config)
    # With its small initial weights the caption of every image is empty.
    for weight in model.parameters():
        weight.data *= 20 if weight.dim() > 1 else 1
    names = ["input_ids", "attention_mask"]
    text_tokenizer = transformers.BertTokenizer(vocab=number, model_input_names=names, **special_tokens)
    return model, transformers.Florence2Processor(image_processor, text_tokenizer)


def tokenizer():
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def save_captioner(build, folder):
    torch.manual_seed(0)
    for part in build():
        part.save_pretrained(folder)
    return str(folder)
