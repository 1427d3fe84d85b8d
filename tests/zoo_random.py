"""Random modules for the zoo: Hypothesis composes blocks on vectors, sequences and images into rows.

A block is a recipe for a module that keeps the form of what flows through it, written so that examples never meet.
"""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from zoo import (
    CLASSES,
    LENGTH,
    VOCABULARY,
    WIDTH,
    Lambda,
    Row,
    classes,
    images,
    parameter,
    sequences,
    smoothed,
    squared,
    tokens,
    values,
    vectors,
    weighted,
)
from zoo import cross_entropy as plain

Make = Callable[[], nn.Module]

CHANNELS = 4


def soft_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(targets * outputs.log_softmax(1)).sum(1)


def several_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared, and written out: PyTorch's own has no second derivative."""
    right = outputs.gather(1, targets[:, None])
    return (1 + outputs - right).relu().square().mean(1)


def robust(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.huber_loss(outputs.flatten(1).mean(1), targets, reduction="none")


def probabilities(n: int = 9) -> Tensor:
    return torch.rand(n, CLASSES).softmax(1)


def flags(n: int = 9) -> Tensor:
    return (torch.rand(n, CLASSES) > 0.5).float()


LOSSES = {
    "cross-entropy": (plain, classes), "smoothed": (smoothed, classes), "weighted": (weighted, classes),
    "squared": (squared, values), "soft labels": (soft_labels, probabilities),
    "several labels": (several_labels, flags), "hinge": (hinge, classes), "Huber": (robust, values),
}  # fmt: skip


def activation(function: Callable[[Tensor], Tensor]) -> Make:
    return lambda: Lambda(lambda m, x: function(x))


def square() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def twice() -> nn.Module:
    return Lambda(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=square())


def gated() -> nn.Module:
    return Lambda(lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), a=square(), b=square())


def beside() -> nn.Module:
    return Lambda(lambda m, x: m.layer(x) + 0.1 * (x @ m.layer.weight), layer=square())


def in_place() -> nn.Module:
    return Lambda(lambda m, x: m.layer(x).add_(1).mul_(0.5).tanh_(), layer=square())


def frozen() -> nn.Module:
    return square().requires_grad_(False)


def without_gradient() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = torch.tanh(m.layer(x))
        return x + shift

    return Lambda(forward, layer=square())


def detached() -> nn.Module:
    return Lambda(lambda m, x: x + m.layer(x).detach(), layer=square())


def leading_axis() -> nn.Module:
    return Lambda(lambda m, x: m.layer(x[None])[0], layer=square())


def flattened() -> nn.Module:
    return Lambda(lambda m, x: m.layer(x.reshape(-1, WIDTH)).view(x.shape), layer=square())


def checkpointed() -> nn.Module:
    return Lambda(lambda m, x: checkpoint(lambda h: torch.tanh(m.layer(h)), x, use_reentrant=False), layer=square())


def single_precision() -> nn.Module:
    return Lambda(lambda m, x: m.layer(x.float()).to(x.dtype), layer=square())


def shared_module() -> nn.Module:
    layer = square()
    return nn.Sequential(layer, nn.Tanh(), layer)


def shared_weight() -> nn.Module:
    first, second = square(), square()
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def generated() -> nn.Module:
    return Lambda(lambda m, x: x * torch.tanh(m.scale(x)) + m.shift(x), scale=square(), shift=square())


def adapter() -> nn.Module:
    made = Lambda(lambda m, x: m.base(x) + m.up(m.down(x)), base=square(), down=nn.Linear(WIDTH, 2, bias=False),
                  up=nn.Linear(2, WIDTH, bias=False))  # fmt: skip
    made.base.requires_grad_(False)
    return made


def mixture() -> nn.Module:
    """Two experts, of which the better one for each example answers."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        gates = m.gate(x).softmax(-1)
        return gates[..., :1] * m.a(x) + gates[..., 1:] * m.b(x)

    return Lambda(forward, gate=nn.Linear(WIDTH, 2), a=square(), b=square())


ANYWHERE: tuple[Make, ...] = (
    square, lambda: nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh, nn.GELU, nn.SiLU, lambda: nn.ReLU(inplace=True),
    activation(lambda x: functional.leaky_relu(x, 0.1)), nn.Softplus, lambda: nn.LayerNorm(WIDTH),
    lambda: nn.RMSNorm(WIDTH), nn.PReLU, lambda: nn.Dropout(0.3), twice, gated, beside, in_place, frozen,
    without_gradient, detached, leading_axis, flattened, checkpointed, single_precision, shared_module, shared_weight,
    generated, adapter, mixture, lambda: nn.Identity(),
    lambda: nn.utils.parametrizations.weight_norm(square()),
    lambda: Lambda(lambda m, x: x * m.scale, scale=parameter()),
    lambda: Lambda(lambda m, x: x + m.shift, shift=parameter(WIDTH)),
    lambda: Lambda(lambda m, x: x @ m.matrix, matrix=parameter(WIDTH, WIDTH)),
    lambda: Lambda(lambda m, x: x * m.mask, mask=torch.rand(WIDTH)),
    lambda: Lambda(lambda m, x: x, unused=square()),
    lambda: Lambda(lambda m, x: torch.stack([part(x) for part in m.parts]).mean(0),
                   parts=nn.ModuleList([square(), square()])),
    lambda: Lambda(lambda m, x: functional.normalize(m.layer(x), dim=-1), layer=square()),
)  # fmt: skip

OF_VECTORS: tuple[Make, ...] = (
    lambda: nn.BatchNorm1d(WIDTH),
    lambda: nn.PReLU(WIDTH),
    lambda: Lambda(lambda m, x: m.layer(x, x), layer=nn.Bilinear(WIDTH, WIDTH, WIDTH)),
    lambda: Lambda(lambda m, x: m.cell(x), cell=nn.GRUCell(WIDTH, WIDTH)),
    lambda: Lambda(lambda m, x: m.cell(x)[0], cell=nn.LSTMCell(WIDTH, WIDTH)),
    lambda: Lambda(lambda m, x: m.norm(x), norm=nn.GroupNorm(2, WIDTH)),
    lambda: Lambda(lambda m, x: m.layer(x[:, None]).mean(1), layer=nn.Conv1d(1, 3, 3, padding=1)),
)

OF_SEQUENCES: tuple[Make, ...] = (
    lambda: Lambda(lambda m, x: m.cell(x)[0], cell=nn.GRU(WIDTH, WIDTH, batch_first=True)),
    lambda: Lambda(lambda m, x: m.cell(x)[0], cell=nn.LSTM(WIDTH, 3, batch_first=True, bidirectional=True)),
    lambda: Lambda(lambda m, x: m.cell(x.transpose(0, 1))[0].transpose(0, 1), cell=nn.RNN(WIDTH, WIDTH)),
    lambda: Lambda(lambda m, x: m.attend(x, x, x)[0], attend=nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True, norm_first=True, dropout=0.0),
    lambda: Lambda(lambda m, x: x + m.table(torch.arange(LENGTH)), table=nn.Embedding(LENGTH, WIDTH)),
    lambda: Lambda(lambda m, x: x + m.table(torch.arange(LENGTH)[None]), table=nn.Embedding(LENGTH, WIDTH)),
    lambda: Lambda(lambda m, x: x + m.table, table=parameter(LENGTH, WIDTH)),
    lambda: Lambda(lambda m, x: m.layer(x.transpose(0, 1)).transpose(0, 1), layer=square()),
    lambda: Lambda(lambda m, x: m.layer(x), layer=nn.Conv1d(LENGTH, LENGTH, 3, padding=1)),
    lambda: Lambda(lambda m, x: m.layer(x.transpose(1, 2)).transpose(1, 2), layer=nn.Conv1d(WIDTH, WIDTH, 1, groups=2)),
    lambda: Lambda(lambda m, x: m.mix(x.transpose(1, 2)).transpose(1, 2), mix=nn.Linear(LENGTH, LENGTH)),
    lambda: Lambda(lambda m, x: m.norm(x.transpose(1, 2)).transpose(1, 2), norm=nn.BatchNorm1d(WIDTH)),
)

OF_IMAGES: tuple[Make, ...] = (
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding="same", dilation=2),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="circular"),
    lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1),
    lambda: nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)),
    lambda: nn.BatchNorm2d(CHANNELS), lambda: nn.GroupNorm(2, CHANNELS),
    lambda: nn.InstanceNorm2d(CHANNELS, affine=True), lambda: nn.PReLU(CHANNELS), lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1), nn.Tanh, lambda: nn.ReLU(inplace=True), nn.Hardswish, lambda: nn.Dropout2d(0.2),
    lambda: nn.LayerNorm([CHANNELS, 6, 6]),
    lambda: Lambda(lambda m, x: x * torch.sigmoid(m.gate(x.mean((2, 3))))[:, :, None, None],
                   gate=nn.Linear(CHANNELS, CHANNELS)),
    lambda: nn.ChannelShuffle(2),
    lambda: Lambda(lambda m, x: m.layer(x.movedim(1, -1)).movedim(-1, 1), layer=nn.Linear(CHANNELS, CHANNELS)),
)  # fmt: skip

ENDS: dict[str, tuple[Make, ...]] = {
    "vectors": (nn.Identity,),
    "sequences": (activation(lambda x: x.mean(1)), activation(lambda x: x[:, -1]), activation(lambda x: x.amax(1))),
    "images": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, WIDTH)),
               lambda: nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 36, WIDTH))),
}  # fmt: skip

FORMS: dict[str, tuple[Callable[[int], Tensor], tuple[Make, ...], str]] = {
    "vectors": (vectors, ANYWHERE + OF_VECTORS, "vectors"),
    "sequences": (sequences, ANYWHERE + OF_SEQUENCES, "sequences"),
    "tokens": (tokens, ANYWHERE + OF_SEQUENCES, "sequences"),
    "images": (images, OF_IMAGES, "images"),
}


def residual(block: nn.Module) -> nn.Module:
    return Lambda(lambda m, x: x + m.block(x.clone()), block=block)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A network of one to four blocks, some with a shortcut, and a loss; `Row.name` describes it."""
    form = draw(st.sampled_from(list(FORMS)))
    inputs, blocks, end_form = FORMS[form]
    chosen = draw(st.lists(st.tuples(st.integers(0, len(blocks) - 1), st.booleans()), min_size=1, max_size=4))
    end = draw(st.integers(0, len(ENDS[end_form]) - 1))
    loss_name = draw(st.sampled_from(list(LOSSES)))
    # Class weights in float32 go with no float64 output, in PyTorch itself.
    double = draw(st.sampled_from([False, False, True])) and loss_name != "weighted"
    parallel = draw(st.sampled_from([False, False, False, False, True]))
    loss, targets = LOSSES[loss_name]

    def build() -> nn.Module:
        layers = [residual(blocks[i]()) if shortcut else blocks[i]() for i, shortcut in chosen]
        first = [nn.Embedding(VOCABULARY, WIDTH)] if form == "tokens" else []
        module: nn.Module = nn.Sequential(*first, *layers, ENDS[end_form][end](), nn.Linear(WIDTH, CLASSES))
        module = nn.DataParallel(module) if parallel else module
        return module.double() if double else module

    def made(n: int) -> Tensor:
        found = inputs(n)
        return found.double() if double and found.is_floating_point() else found

    def wanted(n: int) -> Tensor:
        found = targets(n)
        return found.double() if double and found.is_floating_point() else found

    torch.manual_seed(0)
    kinds = ", ".join(f"{'+' * shortcut}{i}:{_name(blocks[i]())}" for i, shortcut in chosen)
    settings = f"{loss_name}{' double' * double}{' parallel' * parallel}"
    return Row(f"{form}: {kinds}; end {end}; {settings}", build, made, loss, wanted)


def _name(module: nn.Module) -> str:
    kinds = [type(one).__name__ for one in module.modules() if type(one) not in (Lambda, nn.Sequential)]
    return "/".join(kinds[:3]) or "function"
