"""Control variates of a SCAFFOLD client."""

import torch
from torch import nn

from fgl_app.algorithms.scaffold import GradientControl


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def descend_by_hand(model, batches, rate, control=None):
    for x in batches:
        model.zero_grad()
        model(x).square().mean().backward()
        if control:
            control.on_gradients(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(rate * parameter.grad)


def test_with_sgd_the_new_variate_is_option_two_of_the_paper():
    model = linear()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(1)
    server = {name: torch.randn_like(tensor) for name, tensor in start.items()}
    own = {name: torch.randn_like(tensor) for name, tensor in start.items()}
    control = GradientControl(server, own)
    steps, rate = 4, 0.05
    descend_by_hand(model, torch.randn(steps, 6, 3), rate, control)
    new, change = control.finish()
    for name, parameter in model.named_parameters():
        option_two = own[name] - server[name] + (start[name] - parameter.detach()) / (steps * rate)
        assert torch.allclose(new[name], option_two, atol=1e-5)
        assert torch.allclose(change[name], new[name] - own[name])


def test_zero_variates_change_nothing():
    batches = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    plain, controlled = linear(), linear()
    zero = {name: torch.zeros_like(parameter) for name, parameter in plain.named_parameters()}
    descend_by_hand(plain, batches, 0.1)
    descend_by_hand(controlled, batches, 0.1, GradientControl(zero, None))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), controlled.parameters(), strict=True))


def test_a_client_without_a_step_keeps_its_variate():
    own = {"weight": torch.ones(2)}
    new, change = GradientControl({"weight": torch.zeros(2)}, own).finish()
    assert torch.equal(new["weight"], own["weight"])
    assert not change["weight"].any()
