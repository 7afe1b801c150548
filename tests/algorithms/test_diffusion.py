"""Training and sampling of diffusion models, with a U-Net of a few thousand weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from fgl_app.algorithms.diffusion import (
    DiffusionProcess,
    DiffusionSettings,
    new_optimizer,
    noise_prediction_loss,
    train_diffusion,
)
from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.sampling import sample
from fgl_app.algorithms.threads import limit_threads
from fgl_app.algorithms.types import LabeledImages, LabeledLatents
from fgl_app.models.autoencoders import load_autoencoder

PROCESS = DiffusionProcess("v_prediction", "linear")
SETTINGS = DiffusionSettings(epochs=2, batch_size=8, learning_rate=1e-3, ema_decay=0.9, process=PROCESS)
FAST = replace(SETTINGS, batch_size=30, learning_rate=5e-3)


def tiny_unet(*, classes=3, dropout=0.0):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=classes,
        dropout=dropout,
    )


@pytest.fixture
def data():
    """Classes 0, 1, 2 are uniform images of -1, 0, 1."""
    labels = torch.arange(30) % 3
    return LabeledLatents((labels - 1.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), labels)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_falls_on_a_fixed_batch(data, prediction):
    process = DiffusionProcess(prediction, "cosine")
    model = tiny_unet()

    def loss():
        with torch.no_grad():
            return noise_prediction_loss(model, process.scheduler(), data, seeded_generator("fixed")).item()

    before = loss()
    train_diffusion(model, data, replace(FAST, epochs=20, process=process), seeded_generator("order"))
    assert loss() < 0.6 * before


def test_the_targets_match_the_papers(data):
    """A model that returns zero has the mean square of its target as its loss."""
    clean, noise = data.latents, None
    for prediction in ("epsilon", "v_prediction"):
        process = DiffusionProcess(prediction, "linear")
        model = tiny_unet()
        for parameter in model.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
        loss = noise_prediction_loss(model, process.scheduler(), data, seeded_generator("targets")).item()
        generator = seeded_generator("targets")
        times = torch.randint(1000, (30,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[times].view(-1, 1, 1, 1)
        target = (
            noise if prediction == "epsilon" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        )
        assert loss == pytest.approx(target.square().mean().item(), rel=1e-4)


def test_the_same_seed_gives_the_same_weights_even_with_dropout(data):
    results = []
    for global_seed in (1, 2):
        model = tiny_unet(dropout=0.5)
        torch.manual_seed(global_seed)
        loss = train_diffusion(model, data, SETTINGS, seeded_generator("order", 0))
        results.append((loss, weights(model)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_without_epochs_or_data_the_model_is_unchanged(data):
    model = tiny_unet()
    before = weights(model)
    assert (
        train_diffusion(model, data, replace(SETTINGS, epochs=0, min_steps=50), seeded_generator("x")) == 0.0
    )
    assert (
        train_diffusion(
            model, data.select(torch.tensor([], dtype=torch.int64)), SETTINGS, seeded_generator("x")
        )
        == 0.0
    )
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize(
    ("examples", "min_steps", "expected"),
    # 30 examples are 4 batches of 8, so 2 epochs are 8 steps; at least 9 steps are 3 epochs, 12 steps.
    [(30, 0, 8), (30, 8, 8), (30, 9, 12), (5, 0, 2), (5, 9, 9)],
)
def test_small_clients_take_the_minimum_number_of_steps(data, examples, min_steps, expected):
    settings = replace(SETTINGS, min_steps=min_steps)
    assert settings.steps(examples) == expected
    batches = []
    few = data.select(torch.arange(examples))
    train_diffusion(tiny_unet(), few, settings, seeded_generator("x"), callback=batches.append)
    assert len(batches) == expected
    assert sum(batches) == examples * expected // math.ceil(examples / 8)


def test_training_returns_the_average_of_the_weights(data):
    """The average lies between the first and the last weights."""
    moved, averaged = tiny_unet(), tiny_unet()
    before = weights(moved)
    train_diffusion(moved, data, replace(SETTINGS, ema_decay=0.0), seeded_generator("x"))
    train_diffusion(averaged, data, SETTINGS, seeded_generator("x"))
    way = (weights(moved) - before).norm()
    assert 0.01 * way < (weights(averaged) - weights(moved)).norm() < 0.5 * way


def test_the_proximal_term_limits_the_change_of_weights(data):
    plain, held = tiny_unet(), tiny_unet()
    before = weights(plain)
    train_diffusion(plain, data, replace(FAST, epochs=10), seeded_generator("x"))
    train_diffusion(held, data, replace(FAST, epochs=10, proximal_mu=100.0), seeded_generator("x"))
    assert (weights(held) - before).norm() < 0.5 * (weights(plain) - before).norm()


def test_the_state_of_an_optimizer_continues(data):
    """The second training differs from one with a new optimizer."""
    results = []
    for continues in (True, False):
        model = tiny_unet()
        optimizer = new_optimizer(model)
        train_diffusion(model, data, SETTINGS, seeded_generator("x"), optimizer=optimizer)
        train_diffusion(
            model, data, SETTINGS, seeded_generator("y"), optimizer=optimizer if continues else None
        )
        results.append(weights(model))
    assert not torch.equal(*results)


@pytest.mark.parametrize("name", ["ddim", "dpm++", "ddpm"])
def test_a_sample_is_the_same_in_any_batch(name):
    model, labels = tiny_unet(), torch.tensor([0, 1, 2, 0, 1])

    def draw(batch_size):
        generators = [seeded_generator("image", i) for i in range(5)]
        scheduler = PROCESS.sampler(name)
        return sample(model, scheduler, labels, generators, num_inference_steps=4, batch_size=batch_size)

    whole = draw(5)
    assert whole.latents.shape == (5, 1, 8, 8)
    assert torch.equal(whole.labels, labels)
    assert torch.allclose(whole.latents, draw(2).latents, atol=1e-4)
    assert len({latent.numpy().tobytes() for latent in whole.latents}) == 5


def test_a_trained_model_draws_the_class_it_is_asked_for(data):
    model = tiny_unet()
    train_diffusion(model, data, replace(FAST, epochs=60, learning_rate=8e-3), seeded_generator("x"))
    generators = [seeded_generator("image", i) for i in range(9)]
    labels = torch.arange(9) % 3
    drawn = sample(model, PROCESS.sampler("ddim"), labels, generators, num_inference_steps=20, batch_size=9)
    assert torch.equal(drawn.latents.mean((1, 2, 3)).round().long() + 1, labels)


def test_an_unconditional_model_ignores_labels(data):
    model = tiny_unet(classes=None)
    train_diffusion(model, data, SETTINGS, seeded_generator("x"))
    draws = [
        sample(
            model,
            PROCESS.sampler("ddim"),
            torch.tensor([label]),
            [seeded_generator("image", 0)],
            num_inference_steps=3,
            batch_size=1,
        ).latents
        for label in (0, 2)
    ]
    assert torch.equal(*draws)


@pytest.mark.parametrize("name", ["ddim", "dpm++", "ddpm"])
def test_few_steps_start_from_pure_noise(name):
    scheduler = PROCESS.sampler(name)
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == 999


@pytest.mark.parametrize(("width", "within"), [(10, 1), (2000, 3)])
def test_a_small_model_trains_with_one_thread(width, within):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with limit_threads(torch.nn.Linear(width, width)):
            assert torch.get_num_threads() == within
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_pixels_are_restored_exactly():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8))
    data = LabeledImages(images, torch.arange(5))
    latents = ImageSpace(None).encode(data)
    assert latents.latents.min() >= -1
    assert latents.latents.max() <= 1
    assert torch.equal(ImageSpace(None).decode(latents).images, images)


def test_latents_are_restored_approximately():
    from fgl_app.data.sources import load_dataset

    data = load_dataset("digits", 32).test.select(torch.arange(0, 1000, 50))
    space = ImageSpace(load_autoencoder("embedded", torch.device("cpu")))
    latents = space.encode(data)
    assert latents.latents.shape == (20, 4, 8, 8)
    assert 0.7 < latents.latents.std() < 1.3
    back = space.decode(latents).images
    assert (back.float() - data.images.float()).abs().mean() < 10
