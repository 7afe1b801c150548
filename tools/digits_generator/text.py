"""Vocabulary, tokenizer and text encoder."""

import random

from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fgl_app.algorithms.strokes import ASPECT_WORDS, SLANT_WORDS, WIDTH_WORDS
from tools.digits_generator.renders import LABELS

MAX_TOKENS = 16
TEMPLATE = "a handwritten digit {label}"
NEGATIVE_PROMPT = "low quality, low resolution"
_SPECIAL = ("<|unk|>", "<|startoftext|>", "<|endoftext|>")


def build_tokenizer() -> CLIPTokenizer:
    """Build a CLIP tokenizer in which every word of the prompts, and the comma, is one token.

    The merges of a word come after those of earlier words, so no word splits another one. Other words are
    split into pieces of these words or mapped to the unknown token.
    """
    phrases = (TEMPLATE.format(label=""), NEGATIVE_PROMPT, *LABELS, *WIDTH_WORDS, *SLANT_WORDS, *ASPECT_WORDS)
    words = sorted({word for phrase in phrases for word in phrase.replace(",", " ").split()})
    tokens = [*_SPECIAL, ",</w>", *(f"{word}</w>" for word in words)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        tokens.extend(pieces)
        for pair in merges:
            pieces = _merge(pieces, pair)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _merge(pieces, merges[-1])
            tokens.append("".join(merges[-1]))
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[2],
        model_max_length=MAX_TOKENS,
    )
    for word in words:
        assert len(tokenizer.tokenize(word)) == 1, f"the merges break up the word {word!r}"
    return tokenizer


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build a two-layer CLIP text encoder of width 64."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def training_prompt(label: int, caption: str, rng: random.Random) -> str:
    """Return the prompt of a render: 10 % empty, 45 % only the class, the rest with the caption."""
    draw = rng.random()
    prompt = TEMPLATE.format(label=LABELS[label])
    if draw < 0.10:
        return ""
    return prompt if draw < 0.55 else f"{prompt}, {caption}"


def degraded_prompt(label: int, rng: random.Random) -> str:
    """Return the prompt of a degraded render, with or without the class."""
    if rng.random() < 0.5:
        return NEGATIVE_PROMPT
    return f"{TEMPLATE.format(label=LABELS[label])}, {NEGATIVE_PROMPT}"
