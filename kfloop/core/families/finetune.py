"""``train.finetune``: a pretrained model of timm (images) or transformers (texts), with a new head.

What builds the network again is kept in the checkpoint, and so is the tokenizer: neither the folder nor the hub is needed afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head
from kfloop.core.sections import Positive, Section
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from kfloop.core.encoding import Encoder
    from kfloop.core.families import NetworkSpec
    from kfloop.core.sections import FinetuneConfig
    from kfloop.core.versions import DatasetVersion

LEARNER = "kfloop.core.learning.finetuning:Finetuning"
LIBRARIES = {"image": ("timm",), "text": ("transformers", "sentence")}


class Options(Section):
    """What ``train.options`` may say beside ``train.finetune``."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the embedding that is left out in a training step."""
    image_size: Positive | None = None
    """Side in pixels to which images are resized before the model sees them; null means the one it was pretrained with."""
    longest: Positive = 256
    """Pieces of a text that the model sees at most."""


def prepared(
    told: FinetuneConfig, options: dict[str, Any], version: DatasetVersion, objective: str
) -> tuple[dict[str, Any], Encoder | None]:
    """The options of the network, and the encoder that its model needs; null for that of the modality.

    Args:
        told: Section ``train.finetune``.
        options: Checked ``train.options``.
        version: Dataset version.
        objective: What is learned.

    Raises:
        ConfigError: The data do not fit the library, the model is not there, or the library is not installed.
    """
    fitting = LIBRARIES.get(version.modality, ())
    auto = "sentence" if told.model.startswith("sentence:") and "sentence" in fitting else next(iter(fitting), "")
    library = auto if told.library == "auto" else told.library
    if library not in fitting or objective not in {"classification", "multilabel", "regression"}:
        raise ConfigError(
            f"train.finetune '{told.model}' ({library or 'no library'}) cannot do {objective} of {version.modality} data",
            hint="timm models take images, those of transformers and sentence embeddings texts; or use train.family",
        )
    kept = options | {"library": library} | told.model_dump(include={"model", "mode", "blocks", "backbone_rate"})
    from kfloop.core.families import pretrained

    if library == "timm":
        return kept | {"architecture": pretrained.timm_architecture(told.model)}, None
    from kfloop.core.encoding.pieces import Encoder as Pieces

    source = pretrained.text_source(told.model, library)
    architecture, tokenizer, pad, most = pretrained.text_architecture(told.model, source)
    encoder = Pieces.fit(version, tokenizer=tokenizer, pad=pad, most=min(most, int(options["longest"])))
    return kept | {"architecture": architecture}, encoder


def build(spec: NetworkSpec) -> nn.Module:
    """The network with random weights; ``Finetuning`` loads the pretrained ones when a training starts."""
    return ImageNetwork(spec) if spec.options["library"] == "timm" else TextNetwork(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """A head alone bears a high rate and many passes; pretrained weights need few and small steps."""
    del n_train
    if spec.options["mode"] == "frozen":
        return Defaults(epochs=12, batch_size=32, learning_rate=3e-3, patience=4)
    return Defaults(epochs=5, batch_size=32, learning_rate=1e-3, patience=3)


class Network(nn.Module):
    """What both kinds share: which pretrained weights are trained, and the head.

    Args:
        spec: Its description.
        backbone: The pretrained model's network.
        width: Length D of its embedding.
    """

    def __init__(self, spec: NetworkSpec, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.mode = str(spec.options["mode"])
        # Without weights of its own: embeddings of any pretrained model come to the head in one scale.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(float(spec.options["dropout"]))
        self.head = Head(spec, width)
        last = self.last_blocks(int(spec.options["blocks"])) if self.mode == "partial" else set()
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(self.mode == "full" or name in last)

    def last_blocks(self, count: int) -> set[str]:
        """Names of the backbone's weights that ``partial`` trains."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Network:
        """What is not trained behaves as in use: batch statistics stay, nothing is left out."""
        super().train(mode)
        if self.mode != "full":
            for module in self.backbone.modules():
                if not any(parameter.requires_grad for parameter in module.parameters()):
                    module.eval()
        return self

    def embed(self, *inputs: Tensor) -> Tensor:
        """Embedding [B, D]."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D]."""
        return self.answers(self.embed(*inputs))

    def answers(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding."""
        return self.head(self.dropout(self.norm(embedding))), embedding


class TextNetwork(Network):
    """A text encoder of transformers; the embedding is the mean over the pieces.

    Args:
        spec: Its description.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        from kfloop.core.families.pretrained import text_backbone

        backbone = text_backbone(spec.options["architecture"])
        super().__init__(spec, backbone, _width(backbone))

    def last_blocks(self, count: int) -> set[str]:
        """Those of the last layers of the longest stack, and of what has no place in it but stands after it (a last norm)."""
        stacks = [(name, module) for name, module in self.backbone.named_modules() if isinstance(module, nn.ModuleList)]
        name, layers = max(stacks, key=lambda item: len(item[1]), default=("", nn.ModuleList()))
        if not len(layers):
            raise ConfigError("train.finetune.mode 'partial': this model has no stack of layers", hint="use mode: full")
        first = max(0, len(layers) - count)
        names = [key for key, _ in self.backbone.named_parameters()]
        inside = [at for at, key in enumerate(names) if key.startswith(f"{name}.")]
        wanted = tuple(f"{name}.{at}." for at in range(first, len(layers)))
        return {key for at, key in enumerate(names) if key.startswith(wanted) or at > inside[-1]}

    def embed(self, *inputs: Tensor) -> Tensor:
        """Embedding [B, D] of pieces int64 [B, L] and their mask."""
        ids, mask = inputs
        hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.to(hidden.dtype)[:, :, None]
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _width(backbone: nn.Module) -> int:
    """Length of the embedding, which a configuration leaves out where it is the usual one."""
    config: Any = backbone.config
    return int(config.hidden_size)


class ImageNetwork(Network):
    """A model of timm without its classifier.

    Args:
        spec: Its description.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        from kfloop.core.families.pretrained import timm_backbone

        architecture = spec.options["architecture"]
        backbone, width = timm_backbone(architecture)
        super().__init__(spec, backbone, width)
        self.register_buffer("mean", torch.tensor(architecture["mean"]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(architecture["std"]).reshape(1, 3, 1, 1))
        side = spec.options.get("image_size")
        self.size = (side, side) if side else tuple(architecture["size"])

    def last_blocks(self, count: int) -> set[str]:
        """Those of the last groups of layers, as timm cuts the model."""
        from kfloop.core.families.pretrained import timm_groups

        groups = timm_groups(self.backbone)
        return {name for group in groups[-count:] for name in group}

    def embed(self, *inputs: Tensor) -> Tensor:
        """Embedding [B, D] of images uint8 [B, H, W, C]."""
        (image,) = inputs
        pixels = image.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        if tuple(image.shape[1:3]) != self.size:
            pixels = functional.interpolate(pixels, self.size, mode="bilinear", align_corners=False)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        found: Tensor = self.backbone((pixels - self.mean) / self.std)
        return found
