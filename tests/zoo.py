"""Small modules of every kind that people bring: one table, a row each.

A row is a recipe for a problem: a module, its inputs, a loss for each example, and targets. Rows with
`refused` have no right answer, and must be refused before any work; `second`: whether second derivatives exist.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

N, CLASSES, VOCABULARY, LENGTH, WIDTH = 9, 3, 7, 4, 6

Loss = Callable[[Any, Tensor], Tensor]


def classes(n: int = N) -> Tensor:
    return torch.arange(n) % CLASSES


def values(n: int = N) -> Tensor:
    return torch.randn(n)


def vectors(n: int = N) -> Tensor:
    return torch.randn(n, WIDTH)


def sequences(n: int = N) -> Tensor:
    return torch.randn(n, LENGTH, WIDTH)


def images(n: int = N) -> Tensor:
    return torch.randn(n, 4, 6, 6)


def tokens(n: int = N) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, LENGTH))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, label_smoothing=0.3, reduction="none")


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    """With weights in float32, which no float64 output goes with."""
    return functional.cross_entropy(outputs, targets, weight=CLASS_WEIGHTS, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs.flatten(1).sum(1), targets, reduction="none")


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none").sum(1)


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets)


class Lambda(nn.Module):
    """A forward of (module, inputs), and the submodules and parameters that it uses."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.call = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def head(width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, CLASSES)


def body() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def trunk(forward: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    """A forward of a module with `body` and `head`."""
    return lambda: Lambda(forward, body=body(), head=head())


def between(module: nn.Module) -> Callable[[], nn.Module]:
    """A module between two linear layers."""
    return lambda: nn.Sequential(body(), deepcopy(module), head())


def of_images(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(CLASSES))


def built(module: nn.Module, inputs: Tensor) -> nn.Module:
    """With its lazy layers' sizes found."""
    with torch.no_grad():
        module.eval()(inputs)
    return module


def convolution(*modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: built(of_images(*deepcopy(modules)), images())


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def tied() -> nn.Module:
    table = nn.Embedding(VOCABULARY, WIDTH)
    module = Lambda(lambda m, x: m.out(torch.tanh(m.table(x))), table=table, out=nn.Linear(WIDTH, VOCABULARY))
    module.out.weight = table.weight
    return module


def recurrent(kind: Any, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: Lambda(
        lambda m, x: m.head(m.cell(x)[0][:, -1]),
        cell=kind(WIDTH, 5, batch_first=True, **settings),
        head=head(5 * (1 + settings.get("bidirectional", False))),
    )


def unbatched_heads(m: Any, x: Tensor) -> Tensor:
    """Queries, keys and values (n, heads, T, d)."""
    q, k, v = m.q(x).view(len(x), LENGTH, 3, 2, 3).permute(2, 0, 3, 1, 4)
    return m.head(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


def without_gradient(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = torch.tanh(m.body(x))
    return m.head(hidden)


def into_its_input(m: Any, x: Tensor) -> Tensor:
    x -= 0.5
    return m.head(x)


def generated(m: Any, x: Tensor) -> Tensor:
    """Weights that another layer makes of each example."""
    weights = m.generator(x).view(-1, CLASSES, WIDTH)
    return torch.einsum("nkd,nd->nk", weights, x)


def counted(m: Any, x: Tensor) -> Tensor:
    m.calls += 1
    return m.head(x)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.script(between(nn.Tanh())())
        return module


def frozen() -> nn.Module:
    module = nn.Sequential(body(), nn.Tanh(), head())
    module[0].requires_grad_(False)
    return module


def adapted() -> nn.Module:
    """A frozen layer with a low-rank change that is trained."""
    module = Lambda(lambda m, x: m.base(x) + m.up(m.down(x)), base=head(), down=nn.Linear(WIDTH, 2), up=head(2))
    module.base.requires_grad_(False)
    return module


def hidden_list() -> nn.Module:
    """Weights that are also held by a plain list, past the names of parameters."""
    module = Lambda(
        lambda m, x: functional.linear(torch.tanh(functional.linear(x, m.kept[0])), m.kept[1]), a=body(), b=head()
    )
    module.kept = [module.a.weight, module.b.weight]
    return module


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(body()), nn.Tanh(), head())


def hugging_face(kind: str, **settings: Any) -> Callable[[], nn.Module]:
    """A tiny random architecture of transformers, as a module of logits for each token."""

    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{kind}Config")(
            vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
            max_position_embeddings=16, pad_token_id=None, bos_token_id=None, eos_token_id=None, **settings,
        )  # fmt: skip
        config.use_cache = False
        name = {"Bert": "BertForMaskedLM", "GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
        return Lambda(lambda m, x: m.net(input_ids=x).logits, net=getattr(transformers, name)(config))

    return build


@dataclass(frozen=True)
class Row:
    """One problem.

    Attributes:
        name: what is special about it.
        build: a new module with random parameters; a parameter that needs no gradient is frozen.
        inputs: (n) → that many inputs.
        loss: (outputs, targets) → one value for each example.
        targets: (n) → that many targets.
        refused: a pattern of the refusal, where there is no right answer.
        second: whether second derivatives exist; a refusal otherwise.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor] = vectors
    loss: Loss = cross_entropy
    targets: Callable[[int], Tensor] = classes
    refused: str | None = None
    second: bool = True


_S = nn.Sequential

ROWS: tuple[Row, ...] = (
    Row("one linear layer", head),
    Row("perceptron", between(nn.Tanh())),
    Row("in-place ReLU", between(nn.ReLU(inplace=True))),
    Row("GELU", between(nn.GELU())),
    Row("dropout in evaluation", between(nn.Dropout(0.5))),
    Row("LayerNorm", between(nn.LayerNorm(WIDTH))),
    Row("LayerNorm without parameters", between(nn.LayerNorm(WIDTH, elementwise_affine=False))),
    Row("RMSNorm", between(nn.RMSNorm(WIDTH))),
    Row("PReLU", between(nn.PReLU())),
    Row("PReLU of every channel", between(nn.PReLU(WIDTH))),
    Row("BatchNorm with running statistics", between(nn.BatchNorm1d(WIDTH))),
    Row("BatchNorm without running statistics", between(nn.BatchNorm1d(WIDTH, track_running_stats=False)),
        refused="other examples|batch"),
    Row("one example less the mean of its batch", lambda: Lambda(lambda m, x: m.head(x - x.mean(0)), head=head()),
        refused="other examples|batch"),
    Row("noise in evaluation", lambda: Lambda(lambda m, x: m.head(x + torch.randn_like(x)), head=head()),
        refused="random"),
    Row("label smoothing", between(nn.Tanh()), loss=smoothed),
    Row("class weights", between(nn.Tanh()), loss=weighted),
    Row("squared error", between(nn.Tanh()), loss=squared, targets=values),
    Row("a mean over the batch", head, loss=mean_loss, refused="one value for each example"),
    Row("Bilinear", lambda: Lambda(lambda m, x: m.b(x[:, :2], x[:, 2:]), b=nn.Bilinear(2, WIDTH - 2, CLASSES))),
    Row("a scalar parameter", lambda: Lambda(lambda m, x: m.head(x) * m.t, head=head(), t=parameter())),
    Row("a bare vector", lambda: Lambda(lambda m, x: m.head(x + m.shift), head=head(), shift=parameter(WIDTH))),
    Row("bare matrices",
        lambda: Lambda(lambda m, x: torch.tanh(x @ m.a) @ m.b, a=parameter(WIDTH, 5), b=parameter(5, 3))),
    Row("a list of parameters", lambda: Lambda(
        lambda m, x: x @ m.ps[0] + m.ps[1], ps=nn.ParameterList([parameter(WIDTH, CLASSES), parameter(CLASSES)]))),
    Row("a class token", lambda: Lambda(
        lambda m, x: m.head(torch.tanh(torch.cat([m.token.expand(len(x), 1, -1), x], 1)).mean(1)),
        token=parameter(1, 1, WIDTH), head=head()), sequences),
    Row("an unused layer", lambda: Lambda(lambda m, x: m.head(x), head=head(), other=body())),
    Row("one layer twice", trunk(lambda m, x: m.head(m.body(torch.tanh(m.body(x)))))),
    Row("a layer under two names", lambda: _S(layer := body(), nn.Tanh(), layer, head())),
    Row("a weight beside its layer", trunk(lambda m, x: m.head(m.body(x) + x @ m.body.weight.square()))),
    Row("weights in a plain list", hidden_list),
    Row("generated weights", lambda: Lambda(generated, generator=nn.Linear(WIDTH, CLASSES * WIDTH))),
    Row("weight norm", spectral),
    Row("residual connection", trunk(lambda m, x: m.head(x + torch.relu(m.body(x))))),
    Row("in-place addition", trunk(lambda m, x: m.head(m.body(x).add_(1).mul_(0.5).tanh_()))),
    Row("writes into its input", lambda: Lambda(into_its_input, head=head())),
    Row("counts its calls", lambda: Lambda(counted, head=head(), calls=0)),
    Row("a plain tensor as mask", lambda: Lambda(lambda m, x: m.head(x * m.mask), head=head(), mask=torch.rand(WIDTH))),
    Row("a plain tensor as matrix", lambda: Lambda(
        lambda m, x: m.head(x @ m.basis), head=head(), basis=torch.randn(WIDTH, WIDTH))),
    Row("float32 inside", lambda: Lambda(lambda m, x: m.head(x.float()), head=head())),
    Row("float64 inside", lambda: Lambda(lambda m, x: m.head(x).double().log_softmax(1), head=head())),
    Row("a trunk without gradient", lambda: Lambda(without_gradient, body=body(), head=head())),
    Row("a detached trunk", trunk(lambda m, x: m.head(torch.tanh(m.body(x)).detach()))),
    Row("a frozen layer", frozen),
    Row("a low-rank adapter", adapted),
    Row("a float64 model", lambda: between(nn.Tanh())().double(), lambda n: vectors(n).double()),
    Row("data-dependent branch", lambda: Lambda(
        lambda m, x: torch.stack([m.a(r) if r[0] > 0 else m.b(r) for r in x]), a=head(), b=head())),
    Row("a leading axis of one", trunk(lambda m, x: m.head(torch.tanh(m.body(x[None]))[-1]))),
    Row("positions without an axis of examples", lambda: Lambda(
        lambda m, x: m.head(torch.tanh(m.e(x) + m.p(torch.arange(LENGTH)[None])[0]).mean(1)),
        e=nn.Embedding(VOCABULARY, WIDTH), p=nn.Embedding(LENGTH, WIDTH), head=head()), tokens),
    Row("positions repeated", lambda: Lambda(
        lambda m, x: m.head(torch.tanh(m.e(x) + m.p(torch.arange(LENGTH)[None]).repeat(len(x), 1, 1)).mean(1)),
        e=nn.Embedding(VOCABULARY, WIDTH), p=nn.Embedding(LENGTH, WIDTH), head=head()), tokens),
    Row("positions broadcast", lambda: Lambda(
        lambda m, x: m.head(torch.tanh(m.e(x) + m.p(torch.arange(LENGTH)[None])).mean(1)),
        e=nn.Embedding(VOCABULARY, WIDTH), p=nn.Embedding(LENGTH, WIDTH), head=head()), tokens),
    Row("tokens first", trunk(lambda m, x: m.head(torch.tanh(m.body(x.transpose(0, 1))).mean(0))), sequences),
    Row("as many tokens as examples", trunk(lambda m, x: m.head(torch.tanh(m.body(x.transpose(0, 1))).mean(0))),
        lambda n: torch.randn(n, N, WIDTH)),
    Row("a sequence of vectors", trunk(lambda m, x: m.head(torch.tanh(m.body(x))).mean(1)),
        sequences),
    Row("all positions flattened",
        trunk(lambda m, x: m.head(torch.tanh(m.body(x.flatten(0, 1))).view(len(x), -1, WIDTH).mean(1))),
        sequences),
    Row("tied embeddings", tied, tokens, token_loss, tokens),
    Row("padding index", lambda: Lambda(
        lambda m, x: m.head(m.e(x).mean(1)), e=nn.Embedding(VOCABULARY, WIDTH, padding_idx=2), head=head()), tokens),
    Row("EmbeddingBag", lambda: _S(nn.EmbeddingBag(VOCABULARY, WIDTH), head()), tokens, second=False),
    Row("GRU", recurrent(nn.GRU), sequences),
    Row("LSTM in both directions", recurrent(nn.LSTM, bidirectional=True), sequences),
    Row("RNN of two layers", recurrent(nn.RNN, num_layers=2), sequences),
    Row("a GRU cell", lambda: Lambda(
        lambda m, x: m.head(m.cell(x[:, 1], m.cell(x[:, 0]))), cell=nn.GRUCell(WIDTH, 5), head=head(5)), sequences),
    Row("MultiheadAttention", lambda: Lambda(
        lambda m, x: m.head(m.a(x, x, x)[0].mean(1)), a=nn.MultiheadAttention(WIDTH, 2, batch_first=True), head=head()),
        sequences),
    Row("TransformerEncoderLayer", lambda: Lambda(
        lambda m, x: m.head(m.t(x).mean(1)), t=nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True), head=head()),
        sequences),
    Row("fused attention", lambda: Lambda(unbatched_heads, q=nn.Linear(WIDTH, 18), head=head()), sequences),
    Row("convolution", convolution(nn.Conv2d(4, 5, 3), nn.Tanh()), images),
    Row("strided, padded, dilated convolution",
        convolution(nn.Conv2d(4, 5, 3, stride=2, padding=2, dilation=2)), images),
    Row("grouped convolution", convolution(nn.Conv2d(4, 6, 3, groups=2), nn.Tanh()), images),
    Row("depthwise convolution", convolution(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Tanh()), images),
    Row("convolution padded to the same size", convolution(nn.Conv2d(4, 5, 3, padding="same"), nn.Tanh()), images),
    Row("convolution padded with reflections", convolution(
        nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), nn.Tanh()), images),
    Row("transposed convolution", convolution(nn.ConvTranspose2d(4, 5, 3, stride=2), nn.Tanh()), images),
    Row("Conv1d",
        lambda: Lambda(lambda m, x: m.head(torch.tanh(m.c(x)).mean(2)), c=nn.Conv1d(LENGTH, 5, 3), head=head(5)),
        sequences),
    Row("Conv3d", lambda: Lambda(
        lambda m, x: m.head(torch.tanh(m.c(x[:, None])).flatten(2).mean(2)), c=nn.Conv3d(1, 5, 2), head=head(5)),
        lambda n: torch.randn(n, 3, 4, 3)),
    Row("BatchNorm2d and max pooling",
        convolution(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(True), nn.MaxPool2d(2)),
        images),
    Row("GroupNorm", convolution(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6)), images),
    Row("InstanceNorm", convolution(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Tanh()), images),
    Row("checkpointed",
        trunk(lambda m, x: m.head(checkpoint(lambda h: torch.tanh(m.body(h)), x, use_reentrant=False)))),
    Row("DataParallel", lambda: nn.DataParallel(between(nn.Tanh())())),
    Row("scripted", scripted),
    Row("a dictionary of outputs", lambda: Lambda(lambda m, x: {"logits": m.head(x)}, head=head()),
        loss=lambda outputs, targets: cross_entropy(outputs["logits"], targets)),
    Row("complex parameters", lambda: Lambda(
        lambda m, x: (x.to(torch.cfloat) @ m.w).abs(), w=nn.Parameter(torch.randn(WIDTH, CLASSES, dtype=torch.cfloat))),
        refused="complex"),
    Row("no gradient at all", lambda: Lambda(lambda m, x: m.head(x).detach(), head=head()), refused="gradient"),
    Row("GPT-2", hugging_face("GPT2"), tokens, token_loss, tokens),
    Row("Llama", hugging_face("Llama"), tokens, token_loss, tokens),
    Row("GPT-NeoX", hugging_face("GPTNeoX"), tokens, token_loss, tokens),
    Row("OPT", hugging_face("OPT", ffn_dim=12, word_embed_proj_dim=8), tokens, token_loss, tokens),
    Row("BERT", hugging_face("Bert"), tokens, token_loss, tokens),
)  # fmt: skip
