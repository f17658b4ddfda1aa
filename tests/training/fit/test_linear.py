"""Linear layers through oneDNN: the same values and gradients as torch's own."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.fit.linear import OneDnnLinear, onednn_wins, use_onednn

built = pytest.mark.skipif(not use_onednn(nn.Identity()), reason="this build of torch has no oneDNN")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 20), nn.SiLU(), nn.Linear(20, 3))


def gradients(net: nn.Module, x: Tensor, *, of_x: bool) -> list[Tensor]:
    x = x.clone().requires_grad_(of_x)
    output: Tensor = net(x)
    output.square().sum().backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in [*net.parameters(), *([x] if of_x else [])]]
    return [output.detach(), *(gradient for gradient in gradients if gradient is not None)]


@built
@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 128])
def test_values_and_gradients_are_torchs_own(rows: int, of_x: bool) -> None:
    plain, x = net(), torch.randn(rows, 30)
    fast = deepcopy(plain)
    assert use_onednn(fast)
    assert [type(layer) for layer in fast] == [OneDnnLinear, nn.SiLU, OneDnnLinear]
    ours, reference = (gradients(either, x, of_x=of_x) for either in (fast, plain))
    assert len(ours) == len(reference) == 5 + of_x
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other)


@built
def test_a_gradient_that_is_not_laid_out_in_rows_will_do() -> None:
    plain, x = net(), torch.randn(8, 30)
    fast = deepcopy(plain)
    use_onednn(fast)
    for either in (fast, plain):
        either(x).sum().backward()  # whose gradient is one number, seen as many
    for ours, reference in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad)


@built
def test_the_weights_and_their_names_stay() -> None:
    plain = net()
    before = deepcopy(plain.state_dict())
    use_onednn(plain)
    after = deepcopy(plain).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@built
def test_without_gradients_it_computes_the_same() -> None:
    plain, x = net(), torch.randn(8, 30)
    fast = deepcopy(plain)
    use_onednn(fast)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))


@pytest.mark.parametrize(
    ("cpuinfo", "wins"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n", True),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n", False),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n", False),
        ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n", False),
        (None, False),
    ],
    ids=["Zen 5", "Zen 4", "Intel", "ARM", "no Linux"],
)
def test_onednn_wins_where_mkl_leaves_half_of_the_vector_units_idle(
    tmp_path: Path, cpuinfo: str | None, wins: bool
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert onednn_wins(path) is wins
