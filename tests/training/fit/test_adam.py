"""The fused Adam that finds its tensors once: torch's own numbers, and torch's own state."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from training.fit.adam import FusedAdam

RATES = (1e-2, 3e-3)
"""Of a step, in turn."""


def start() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in ((5, 3), (3,), ())]


def train(weights: list[Tensor], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.param_groups[0]["lr"] = RATES[step % 2]
        for number, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, 0.1 * number - 0.3) + step * weight.detach()
        optimizer.step()


def torchs_own(weights: list[Tensor], weight_decay: float | None) -> torch.optim.Optimizer:
    if weight_decay is None:
        return torch.optim.Adam(weights, lr=1.0, fused=True)
    return torch.optim.AdamW(weights, lr=1.0, weight_decay=weight_decay, fused=True)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_steps_are_torchs_own(weight_decay: float | None) -> None:
    ours, theirs = start(), start()
    train(ours, FusedAdam(ours, lr=1.0, weight_decay=weight_decay), range(5))
    train(theirs, torchs_own(theirs, weight_decay), range(5))
    assert same(ours, theirs)
    assert not same(ours, start())


@pytest.mark.parametrize("make", [torchs_own, lambda weights, decay: FusedAdam(weights, lr=1.0, weight_decay=decay)])
@pytest.mark.parametrize("begun", [0, 2])
def test_it_goes_on_from_a_state_of_its_own_or_torchs(
    begun: int, make: Callable[[list[Tensor], float], torch.optim.Optimizer]
) -> None:
    theirs, before = start(), start()
    reference, earlier = torchs_own(theirs, 0.1), make(before, 0.1)
    train(theirs, reference, range(5))
    train(before, earlier, range(3))
    ours = [weight.detach().clone().requires_grad_() for weight in before]
    optimizer = FusedAdam(ours, lr=1.0, weight_decay=0.1)
    others = [weight.detach().clone() for weight in ours]
    train(ours, optimizer, range(begun))  # what it had found by then is not what it goes on with
    for weight, other in zip(ours, others, strict=True):
        weight.data.copy_(other)
    optimizer.load_state_dict(deepcopy(earlier.state_dict()))
    train(ours, optimizer, range(3, 5))
    assert same(ours, theirs)
    state, expected = (either.state_dict()["state"] for either in (optimizer, reference))
    assert state.keys() == expected.keys()
    for index, parts in expected.items():
        assert state[index].keys() == parts.keys()
        assert all(torch.equal(state[index][name], part) for name, part in parts.items())


def test_without_gradients_nothing_changes() -> None:
    weights = start()
    optimizer = FusedAdam(weights, lr=1.0, weight_decay=0.1)
    optimizer.step()
    assert same(weights, start())
    train(weights, optimizer, range(1))
    before, state = deepcopy(weights), deepcopy(optimizer.state_dict())
    for weight in weights:
        weight.grad = None
    optimizer.step()
    assert same(weights, before)
    assert str(optimizer.state_dict()) == str(state)


def test_a_closure_computes_the_gradients_and_its_value_is_given_back() -> None:
    weights = start()
    optimizer = FusedAdam(weights, lr=1e-3, weight_decay=None)

    def closure() -> Tensor:
        loss = torch.stack([weight.square().sum() for weight in weights]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first
