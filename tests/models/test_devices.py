import pytest
import torch

from fgl_app.models.devices import check_device, resolve_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_is_rejected():
    with pytest.raises(ValueError, match="device 'cuda:0' is not available on this machine"):
        check_device("cuda:0")


def test_devices_are_resolved():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
