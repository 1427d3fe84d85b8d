"""ResNet-9: its size, its shapes, and what batch norm makes of it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from attriboard.base.errors import CardError
from attriboard.tasks.models.resnet9 import resnet9

TINY = {"width": 2, "n_classes": 3}


def plain_resnet9(w: int, n_classes: int) -> nn.Module:
    """The same network, layer by layer, without a class for blocks."""

    def conv(i: int, o: int, k: int, s: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)]

    layers: list[nn.Module] = [*conv(3, w, 3)]
    for i, o, s in ((w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2)):
        layers += [*conv(i, o, 3, s), *conv(o, o, 3), *conv(i, o, 1, s)]
    return nn.ModuleList([*layers, nn.Linear(8 * w, n_classes)])


def plain_forward(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
    run = list(layers.children())
    x = run[1](run[0](x)).relu()
    for b in range(2, 20, 6):
        inner = run[b + 3](run[b + 2](run[b + 1](run[b](x)).relu())).relu()
        x = (inner + run[b + 5](run[b + 4](x))).relu()
    return run[20](x.flatten(2).mean(2))


@pytest.mark.parametrize(("width", "n_params"), [(64, 4_825_154), (16, 303_122)])
def test_the_published_widths_have_the_promised_number_of_parameters(width: int, n_params: int) -> None:
    model = resnet9({"width": width, "n_classes": 2})
    assert sum(p.numel() for p in model.parameters()) == n_params


@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_its_layers_written_out_do(training: bool) -> None:
    torch.manual_seed(0)
    model, plain = resnet9(TINY).double(), plain_resnet9(2, 3).double()
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    model.train(training), plain.train(training)
    x = torch.randn(6, 3, 12, 12, dtype=torch.float64)
    assert (model(x) - plain_forward(plain, x)).abs().max() < 1e-12
    for ours, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_agrees_with_dattris_network_of_the_same_parameters() -> None:
    peer = pytest.importorskip("dattri.benchmark.models.resnet9.resnet9").ResNet9(num_classes=2, dropout_rate=0.0)
    ours = resnet9({"width": 64, "n_classes": 2})
    ours.load_state_dict(dict(zip(ours.state_dict(), peer.state_dict().values(), strict=True)))
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), peer.eval()(x))


def test_in_evaluation_mode_an_example_is_alone_and_in_training_it_is_not() -> None:
    torch.manual_seed(1)
    model, x = resnet9(TINY), torch.randn(5, 3, 8, 8)
    model(x)  # running statistics other than their start
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(model(x)[:1], model(x[:1]))
        model.train()
        assert (model(x)[:1] - model(x[:2])[:1]).abs().max() > 1e-3


def test_per_example_gradients_with_frozen_statistics_sum_to_the_batch_gradient() -> None:
    torch.manual_seed(2)
    model, x = resnet9(TINY).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x)
    model.eval()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(p: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return functional_call(model, {**p, **buffers}, (one[None],)).logsumexp(1).sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    model(x).logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad)


def test_a_stride_of_the_stem_shrinks_the_images_and_leaves_the_parameters() -> None:
    plain, strided = resnet9(TINY), resnet9({**TINY, "stem_stride": 2})
    assert [p.shape for p in plain.parameters()] == [p.shape for p in strided.parameters()]
    seen: list[tuple[int, ...]] = []
    for model in (plain, strided):
        model.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert seen == [(2, 2, 32, 32), (2, 2, 16, 16)]


@pytest.mark.parametrize("wrong", [{"width": 0, "n_classes": 2}, {"n_classes": 2}, {**TINY, "depth": 9}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(CardError, match=r"model\.options"):
        resnet9(wrong)
