import pytest
import torch

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.synthesis import (
    SynthesisSettings,
    Synthesizer,
    allocate_images,
    plan_images,
    select_shard,
)
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.models.pipelines import Placement, load_pipeline

CPU = torch.device("cpu")
ON_CPU = Placement(CPU)


@pytest.fixture(scope="module")
def pipeline(tiny_generator):
    return load_pipeline(str(tiny_generator), ON_CPU)


@pytest.fixture(scope="module")
def embeddings(pipeline):
    texts = ["zero", "one", "two"]
    return TextEmbeddings(encode_texts(pipeline, texts), torch.tensor([0, 1, 1]), torch.tensor([4, 3, 1]))


def settings(**changes):
    return SynthesisSettings(
        **{"num_inference_steps": 2, "guidance_scale": 1.0, "batch_size": 4, "seed": 0} | changes
    )


def synthesize(pipeline, embeddings, shares, settings, negative=None, callback=None):
    plan = plan_images(embeddings.labels, shares)
    return Synthesizer(pipeline, settings, negative)(select_shard(embeddings, plan, 0, len(plan)), callback)


def test_shares_add_up_to_the_budget_and_follow_the_counts():
    labels = torch.tensor([0, 1, 1, 1, 2, 2])
    counts = torch.tensor([9, 5, 3, 2, 1, 1])
    # Class 1: quotas 5, 3, 2 of 10. Class 2: 5 each. Class 0: all.
    assert allocate_images(labels, counts, 10).tolist() == [10, 5, 3, 2, 5, 5]
    # Class 1, 7 images: quotas 3.5, 2.1, 1.4, so the first gets the seventh. Class 2: the earlier wins.
    assert allocate_images(labels, counts, 7).tolist() == [7, 4, 2, 1, 4, 3]


def test_shares_are_exact_for_huge_counts():
    shares = allocate_images(torch.tensor([0, 0]), torch.tensor([10**9, 10**9 - 1]), 3)
    assert shares.tolist() == [2, 1]


def test_a_plan_has_every_image_once_and_alternates_between_classes():
    labels, shares = torch.tensor([0, 1, 1, 2]), torch.tensor([3, 2, 2, 1])
    plan = plan_images(labels, shares)
    # Class 0 has prompt 0 three times; class 1 alternates between prompts 1 and 2; class 2 has one image.
    assert plan == [(0, 0), (1, 0), (3, 0), (0, 1), (2, 0), (0, 2), (1, 1), (2, 1)]
    seeds = {seeded_generator("image", 7, *image).initial_seed() for image in plan}
    assert len(seeds) == int(shares.sum())


def test_a_shard_has_its_images_and_their_prompts(embeddings):
    plan = plan_images(embeddings.labels, torch.tensor([2, 3, 1]))
    shards = [select_shard(embeddings, plan, number, 4) for number in range(2)]
    assert [image for shard in shards for image in shard.images] == plan
    assert shards[0].images == ((0, 0), (1, 0), (0, 1), (2, 0))
    assert shards[1].images == ((1, 1), (1, 2))
    assert len(shards[0].embeddings) == 3
    assert shards[1].embeddings.labels.tolist() == [1]


def test_images_have_the_labels_of_their_prompts(pipeline, embeddings):
    seen = []
    images = synthesize(pipeline, embeddings, torch.tensor([2, 3, 1]), settings(), callback=seen.append)
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 1]
    assert images.images.shape == (6, 3, 16, 16)
    assert images.images.dtype == torch.uint8
    assert seen == [4, 2]


def test_synthesis_continues_with_smaller_batches_when_memory_runs_out(pipeline, embeddings):
    shares = torch.tensor([3, 3, 1])
    plan = plan_images(embeddings.labels, shares)
    shard = select_shard(embeddings, plan, 0, len(plan))
    reference = Synthesizer(pipeline, settings(batch_size=2))(shard).images
    tried = []

    def has_room_for_two(_, inputs):
        tried.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    synthesizer = Synthesizer(pipeline, settings(batch_size=9))
    hook = pipeline.unet.register_forward_pre_hook(has_room_for_two)
    try:
        assert torch.equal(synthesizer(shard).images, reference)
        assert tried[:3] == [7, 4, 2]
        # Batch sizes that did not fit are not tried again.
        tried.clear()
        synthesizer(shard)
        assert max(tried) == 2
    finally:
        hook.remove()


def test_an_image_is_the_same_in_any_batch(pipeline, embeddings):
    shares = torch.tensor([6, 6, 6])
    reference = synthesize(pipeline, embeddings, shares, settings(batch_size=16)).images
    for batch_size in (1, 3, 8):
        images = synthesize(pipeline, embeddings, shares, settings(batch_size=batch_size)).images
        # Kernels for other batch sizes add in another order: the last bit of a float, so one grey level.
        assert (images.int() - reference.int()).abs().max() <= 1
        assert (images != reference).float().mean() < 0.01


def test_an_image_is_the_same_in_any_plan(pipeline, embeddings):
    few = synthesize(pipeline, embeddings, torch.tensor([1, 0, 1]), settings(batch_size=1)).images
    many = synthesize(pipeline, embeddings, torch.tensor([2, 1, 2]), settings(batch_size=1)).images
    # The first image of the first prompt, and that of the third, which follows the second of the same class.
    assert torch.equal(few[0], many[0])
    assert torch.equal(few[1], many[3])


def test_the_seed_and_the_prompt_determine_the_image(pipeline, embeddings):
    shares = torch.tensor([1, 1, 1])
    first = synthesize(pipeline, embeddings, shares, settings()).images
    assert torch.equal(first, synthesize(pipeline, embeddings, shares, settings()).images)
    assert not torch.equal(first, synthesize(pipeline, embeddings, shares, settings(seed=1)).images)
    assert len({image.numpy().tobytes() for image in first}) == 3


def test_guidance_uses_the_negative_prompt(pipeline, embeddings):
    shares = torch.tensor([1, 1, 1])
    results = []
    for text in ("low quality", "thick strokes"):
        negative = encode_texts(pipeline, [text])
        results.append(
            synthesize(pipeline, embeddings, shares, settings(guidance_scale=7.0), negative=negative).images
        )
    assert not torch.equal(*results)


def test_each_purpose_has_its_own_random_stream():
    draws = {
        torch.rand(1, generator=seeded_generator(*arguments)).item()
        for arguments in [("a", 0), ("b", 0), ("a", 1), ("a", 0, 0), ("a", 0, 1)]
    }
    assert len(draws) == 5
    assert torch.rand(1, generator=seeded_generator("a", 0)).item() in draws
