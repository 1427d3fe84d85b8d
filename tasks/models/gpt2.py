"""GPT-2: Hugging Face's `GPT2LMHeadModel`, from tokens to logits, without dropout.

Radford et al., *Language Models are Unsupervised Multitask Learners* (2019). Input and output embeddings are tied.
New models are initialized as GPT-2 was: normal, with a standard deviation that is smaller by a factor 1/√(2 · layers)
where a block adds to the residual stream; biases 0. It is done here, parameter by parameter, so that a seed means
the same model in every version of transformers. Dropout is left out: the retrained model is the attributed model,
and a seed moves nothing but the start and the order.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn

from attriboard.base.digests import digest_file
from attriboard.base.errors import DataError
from attriboard.tasks.fields import Options
from attriboard.tasks.hub import Absent, import_extra
from attriboard.tasks.models.weights import FILE, SUFFIX, FileOfWeights, Weights, is_path, weights

Size = Annotated[int, Field(gt=0)]


class GPT2Options(Options):
    """Options of the architecture `gpt2`."""

    vocabulary: int = Field(gt=1)
    length: int = Field(gt=1, description="positions that have an embedding")
    width: Size
    layers: Size
    heads: Size
    initializer_range: float = Field(default=0.02, gt=0, description="standard deviation of new weights, .02 in GPT-2")
    pretrained: str = Field(
        default="",
        description="what a retrain starts from: owner/name of the Hub's repository, ./folder as save_pretrained "
        "writes it, relative to the card, or NAME.safetensors, one file of weights",
    )
    revision: str = Field(default="", description="full commit hash of the Hub's repository")
    sha256: str = Field(default="", description="digest of the file of weights")

    @model_validator(mode="after")
    def _consistent(self) -> "GPT2Options":
        if self.width % self.heads:
            raise ValueError(f"width = {self.width}: must be a multiple of heads = {self.heads}")
        on_hub = bool(self.pretrained) and not is_path(self.pretrained) and not self.pretrained.endswith(SUFFIX)
        if bool(self.sha256) != bool(self.pretrained) or bool(self.revision) != on_hub:
            raise ValueError(
                f"pretrained = {self.pretrained!r}: a repository of the Hub needs revision and sha256, a folder or a "
                "bundle needs sha256 alone, and without pretrained there is neither"
            )
        return self


class TokenLogits(nn.Module):
    """GPT-2 as a plain module: token blocks (n, length) int64 → logits (n, length, n_vocab).

    Args:
        gpt2: a `transformers.GPT2LMHeadModel`.
    """

    def __init__(self, gpt2: nn.Module) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after each token."""
        logits: Tensor = self.gpt2(input_ids=tokens, use_cache=False).logits
        return logits


def gpt2(options: Mapping[str, Any]) -> nn.Module:
    """Build the network, initialized by PyTorch's global generator.

    Args:
        options: see `GPT2Options`.

    Raises:
        CardError: an option is unknown, missing or out of range.
        DataError: transformers is not installed.
    """
    parsed = GPT2Options.parse("model.options", options)
    transformers = _transformers()
    model = TokenLogits(transformers.GPT2LMHeadModel(_config(transformers, parsed)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            else:
                shrink = math.sqrt(2 * parsed.layers) if name.endswith("c_proj.weight") else 1.0
                parameter.normal_(std=parsed.initializer_range / shrink)
    return model


def pretrained_gpt2(options: Mapping[str, Any], folder: Path | None = None) -> dict[str, Tensor] | None:
    """The state that a retrain starts from, float32, or `None` where the seed draws it.

    Args:
        options: see `GPT2Options`.
        folder: what a path is relative to; the working folder by default.

    Raises:
        CardError: an option is unknown, missing or out of range.
        DataError: the checkpoint is unavailable, partial, or not the pinned one.
    """
    parsed = GPT2Options.parse("model.options", options)
    if not parsed.pretrained:
        return None
    transformers = _transformers()
    source = weights(parsed.pretrained, parsed.revision, parsed.sha256, folder or Path())
    try:
        path = source.file(FILE)
    except Absent as reason:
        raise DataError(
            f"pretrained model {parsed.pretrained}: {reason}\nany of these helps\n  a network\n  {source.remedy}"
        ) from reason
    if (found := digest_file(path)) != parsed.sha256:
        raise DataError(
            f"{source.place()}: {path.name} has SHA-256 {found}, the card pins {parsed.sha256}; "
            f"this copy is damaged or of another version: {source.remedy}"
        )
    config = _config(transformers, parsed)
    try:
        with _quiet(transformers):
            model, missing = _read(transformers, source, path, config)
    except Exception as error:  # transformers, safetensors and PyTorch raise a dozen types
        raise DataError(
            f"{source.place()}: is no GPT-2 checkpoint of the card's size ({type(error).__name__}: {error})"
        ) from error
    if missing:
        raise DataError(f"{source.place()}: lacks {', '.join(missing)}; this copy is partial: {source.remedy}")
    return {name: value.detach() for name, value in TokenLogits(model).named_parameters()}


def _read(transformers: Any, source: Weights, path: Path, config: Any) -> tuple[nn.Module, list[str]]:
    """A model with the weights in float32, and the names of parameters that they lack."""
    if not isinstance(source, FileOfWeights):
        model, report = transformers.GPT2LMHeadModel.from_pretrained(
            source.place(),
            revision=getattr(source, "revision", "main"),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        return model, sorted(report["missing_keys"])
    model = transformers.GPT2LMHeadModel(config)
    missing, foreign = model.load_state_dict(load_file(path), strict=False)
    if foreign:
        raise ValueError(f"it has {', '.join(foreign)}")
    return model, sorted(set(missing) & {name for name, _ in model.named_parameters()})


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' progress bars and warnings, which a load in every process of a run would print."""
    log, hub = transformers.utils.logging, import_extra("huggingface_hub").utils
    bars, hub_bars, verbosity = log.is_progress_bar_enabled(), not hub.are_progress_bars_disabled(), log.get_verbosity()
    with warnings.catch_warnings():  # HF_HUB_DISABLE_PROGRESS_BARS fixes the Hub's, with a warning
        warnings.simplefilter("ignore")
        log.disable_progress_bar()
        log.set_verbosity_error()
        try:
            yield
        finally:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
            if hub_bars:
                hub.enable_progress_bars()
            else:
                hub.disable_progress_bars()


def _transformers() -> Any:
    try:
        return import_extra("transformers")
    except Absent as reason:
        raise DataError(f"architecture gpt2: {reason}; pip install 'attriboard[text]'") from reason


def _config(transformers: Any, options: GPT2Options) -> Any:
    # Eager attention, because torch.func.vmap has no rule for the fused one.
    return transformers.GPT2Config(
        vocab_size=options.vocabulary,
        n_positions=options.length,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
        attn_implementation="eager",
    )
