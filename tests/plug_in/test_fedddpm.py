"""FedDDPM plugged into another project gives what `fgl run` gives."""

import pytest
import torch
from flwr.clientapp.mod import LocalDpMod

from fgl_app.plug_in import correct_with, sample_with
from fgl_app.strategies import CheckpointedStrategy, NoExchangeStrategy
from tests.app_runs import run
from tests.plug_in.projects import COLOURS, UNET, colour_app, equal, fedddpm, small_unet, start


def test_plugged_in_fedddpm_is_fgl_run_to_the_last_bit(tmp_path):
    """Set-up and two corrections, without rounds on private data: those belong to the project."""
    settings = {"inner_strategy": "auxiliary-only", "num_server_rounds": 3, "round_decay": False}
    run(tmp_path, nodes=3, **COLOURS | settings)
    state = start(fedddpm(NoExchangeStrategy()), colour_app(), small_unet(), rounds=3)
    assert equal(state, tmp_path / "run" / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")


def test_corrections_after_a_restart_are_those_without_a_restart(tmp_path):
    whole = start(fedddpm(NoExchangeStrategy()), colour_app(), small_unet(), rounds=3)

    def checkpointed():
        correct = correct_with(small_unet, epochs=1, batch_size=10, **UNET)
        strategy = fedddpm(NoExchangeStrategy(), correct_fn=correct, sample_fn=sample_once)
        return CheckpointedStrategy(strategy, tmp_path / "checkpoint", parts={"correction": correct})

    sample, samples = sample_with(small_unet, num_inference_steps=2, **UNET), []

    def sample_once(clients):
        samples.append(samples[0] if samples else sample(clients))
        return samples[0]

    start(checkpointed(), colour_app(), small_unet(), rounds=2)
    again = checkpointed()
    assert again.restore()
    rest = start(again, colour_app(), small_unet(), rounds=3)
    assert all(torch.equal(rest[name], whole[name]) for name in whole)


def test_a_mod_of_the_upload_handler_is_applied():
    """Local privacy: clipped to zero and without noise, the upload is the received model."""
    seen = []

    def sample(clients):
        seen.extend(client.state for client in clients)

    clipped = LocalDpMod(clipping_norm=1e-12, sensitivity=0.0, epsilon=1.0, delta=0.1)
    strategy = fedddpm(NoExchangeStrategy(), sample_fn=sample)
    start(strategy, colour_app(mods=[clipped]), small_unet())
    initial = small_unet().state_dict()
    assert len(seen) == 3
    assert all(torch.allclose(state[name], initial[name], atol=1e-9) for state in seen for name in state)


def test_a_wrong_number_of_classes_is_rejected_before_the_training():
    with pytest.raises(ValueError, match="num_classes must be that of the sampled U-Net, 3, got 0"):
        fedddpm(NoExchangeStrategy(), num_classes=0)
    sample = sample_with(small_unet, num_inference_steps=2, **UNET)
    strategy = fedddpm(NoExchangeStrategy(), num_classes=0, sample_fn=sample.__call__)
    with pytest.raises(ValueError, match="must be num_class_embeds of the U-Net, 3, got 0"):
        start(strategy, colour_app(), small_unet())
