import torch

from fgl_app.algorithms.embedding import embed_prompts, encode_texts, merge_embeddings
from fgl_app.algorithms.prompts import Prompt
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.models.pipelines import Placement, load_text_encoder

CPU = torch.device("cpu")
ON_CPU = Placement(CPU)


def test_the_client_needs_neither_unet_nor_vae(tiny_generator):
    encoder = load_text_encoder(str(tiny_generator), ON_CPU)
    assert encoder.unet is None
    assert encoder.vae is None
    assert encoder.text_encoder is not None


def test_embeddings_are_the_pipelines_own(tiny_generator):
    from diffusers import StableDiffusionPipeline

    texts = ["a handwritten digit three", "a handwritten digit four", ""]
    ours = encode_texts(load_text_encoder(str(tiny_generator), ON_CPU), texts, batch_size=2)["prompt_embeds"]
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_generator)
    for row, text in enumerate(texts):
        theirs, _ = pipeline.encode_prompt(text, CPU, 1, do_classifier_free_guidance=False)
        assert torch.allclose(ours[row], theirs[0], atol=1e-6)


def test_an_upload_contains_labels_and_counts_in_half_precision(tiny_generator):
    encoder = load_text_encoder(str(tiny_generator), ON_CPU)
    upload = embed_prompts(encoder, [Prompt("three", 3, 7), Prompt("four", 4, 2)])
    assert upload.tensors["prompt_embeds"].dtype == torch.float16
    assert upload.labels.tolist() == [3, 4]
    assert upload.counts.tolist() == [7, 2]


def _embeddings(values, labels, counts):
    tensor = torch.tensor(values, dtype=torch.float16).view(-1, 1, 1)
    return TextEmbeddings({"prompt_embeds": tensor}, torch.tensor(labels), torch.tensor(counts))


def test_merging_keeps_each_prompt_once_and_adds_its_counts():
    merged = merge_embeddings(
        [_embeddings([1, 2], [0, 1], [5, 6]), _embeddings([2, 3, 1], [1, 0, 1], [1, 2, 3])]
    )
    # Rows by class, then by first appearance: (0: 1), (0: 3), (1: 2 seen twice), (1: 1).
    assert merged.labels.tolist() == [0, 0, 1, 1]
    assert merged.tensors["prompt_embeds"].flatten().tolist() == [1, 3, 2, 1]
    assert merged.counts.tolist() == [5, 2, 7, 3]
