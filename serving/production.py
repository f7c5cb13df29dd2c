"""A Triton repository for production, where the server is not kfloop's own: an ensemble around the ONNX graph on the onnxruntime backend.

``NAME`` takes what a client has and answers with labels; ``NAME_pre`` (python) makes tensors of raw rows, where there is such a form;
``NAME_model`` (onnxruntime, on request with TensorRT; python for servers without that backend) is the graph; ``NAME_post`` (python) tells labels, confidence and review, and logs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import file_sha256
from kfloop.core.encoding import bare
from kfloop.core.scoring import ENCODER, EXTERNAL, GOLDEN, MODEL, REVIEW
from kfloop.core.signature import SIGNATURE, read_signature
from kfloop.errors import ConfigError, ServingError
from kfloop.serving.config_check import check_config
from kfloop.serving.control import read_golden
from kfloop.serving.ensemble_check import check_ensemble
from kfloop.serving.model_config import raw_form
from kfloop.serving.production_configs import (
    CACHE,
    Production,
    ensemble_config,
    graph_config,
    post_config,
    pre_config,
    warmed,
)
from kfloop.serving.repository import BARE, CONFIG, DIGESTS

if TYPE_CHECKING:
    from kfloop.core.encoding.bare.forms import RawInput
    from kfloop.core.signature import Signature

# A release that NVIDIA documents, later than the bulletins of 2025-08 (CVE-2025-23319 and others),
# of 2026-04 (CVE-2026-24173, the abort on absurd shapes) and of 2026-05 (CVE-2026-24206 and 24207); it takes NumPy 2.
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"
TARGETS = ("cpu", "gpu")
BACKENDS = ("onnxruntime", "python")
MODULES = ("raw.py", "request_log.py", "masking.py", "sending.py")  # what the python steps import


def write_production(package: Path, out: Path, model: str, options: Production) -> dict[str, str]:
    """Write the repository.

    Args:
        package: A package, or a version's folder in the embedded repository.
        out: Folder that is not there yet, or is empty.
        model: Name of the ensemble.
        options: What it is made for.

    Returns:
        Text of each ``config.pbtxt``, by name of the model.

    Raises:
        ConfigError: The options do not fit each other, or the folder is not empty.
        ServingError: The model is one behind an API, or its configuration cannot be served.
        StateError: The package is damaged.
    """
    _check(package, out, options)
    signature = read_signature(package)
    form = raw_form(package, signature) if signature.batched else ()
    golden, _ = read_golden(package / GOLDEN)
    configs = {f"{model}_model": graph_config(model, signature, golden, options)}
    if form:
        configs[f"{model}_pre"] = pre_config(model, signature, form, options)
    if signature.batched:
        configs[f"{model}_post"] = post_config(model, signature, options)
    for config in configs.values():
        check_config(config)
    ensemble = ensemble_config(model, signature, form)
    check_config(ensemble)
    check_ensemble(ensemble, configs)
    texts = _write_configs(out, configs | {model: ensemble})
    _write_files(out, package, model, signature, golden, options, raw=bool(form))
    (out / "README.md").write_text(_readme(model, signature, form, options), encoding="utf-8")
    return texts


def _check(package: Path, out: Path, options: Production) -> None:
    if options.target not in TARGETS:
        raise ConfigError(f"target '{options.target}' is none of {', '.join(TARGETS)}")
    if options.tensorrt and options.target != "gpu":
        raise ConfigError(
            "TensorRT runs on GPUs, but the target is cpu", hint="add --target gpu, or leave --tensorrt out"
        )
    if options.tensorrt and (package / MODEL).is_file() and is_quantized(package / MODEL):
        raise ConfigError(
            "TensorRT would run in FP16, and has no use for this graph, whose 8-bit steps are those of CPUs (unsigned activations)",
            hint="package with package.serve: fp32 or fp16 for TensorRT, or leave --tensorrt out",
        )
    if options.backend not in BACKENDS or (options.backend == "python" and options.target != "cpu"):
        raise ConfigError(
            f"backend '{options.backend}' for target {options.target}: the graph runs on {' or '.join(BACKENDS)}, and in python on the CPU alone",
            hint="take backend onnxruntime for GPUs",
        )
    if min(options.gpus, options.instances, options.version) < 1 or (options.delay_us or 0) < 0:
        raise ConfigError(
            f"gpus {options.gpus}, instances {options.instances} and version {options.version} are numbers from 1 on"
        )
    if (package / EXTERNAL).is_file():
        raise ServingError(
            f"'{package}' stands for a model behind an API: there is no graph to export",
            hint="let its own server answer",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' is not empty", hint="name a folder that is not there yet: nothing is overwritten")


def is_quantized(graph: Path) -> bool:
    """Whether an ONNX graph computes with whole numbers of 8 bits."""
    import onnx

    return any(node.op_type == "QuantizeLinear" for node in onnx.load(graph, load_external_data=False).graph.node)


def _write_configs(out: Path, configs: dict[str, Any]) -> dict[str, str]:
    """Each ``config.pbtxt``, read back as a check that its text says the same."""
    from google.protobuf import text_format

    texts = {}
    for name, config in configs.items():
        texts[name] = str(text_format.MessageToString(config))
        if text_format.Parse(texts[name], type(config)()) != config:
            raise ServingError(f"the configuration of '{name}' does not read back as it was written")
        (out / name).mkdir(parents=True)
        (out / name / CONFIG).write_text(texts[name], encoding="utf-8")
    return texts


def _write_files(
    out: Path,
    package: Path,
    model: str,
    signature: Signature,
    golden: dict[str, np.ndarray],
    options: Production,
    *,
    raw: bool,
) -> None:
    number = str(options.version)
    (out / model / number).mkdir()
    (out / model / number / ".keep").touch()  # Triton wants the folder, and neither git nor S3 keeps an empty one
    code = Path(__file__).parent / "model"
    place = out / f"{model}_model" / number
    place.mkdir()
    shutil.copy2(package / MODEL, place / MODEL)
    if options.backend == "python":
        _add_code(place, code / "_graph.py", (code / "version.py", code / "cores.py", code / "raw.py"))
        told = {name: file_sha256(package / name) for name in (MODEL, SIGNATURE, ENCODER)}
        for name in (SIGNATURE, ENCODER):
            shutil.copy2(package / name, place / name)
        (place / DIGESTS).write_text(json.dumps(told, indent=1), encoding="utf-8")
    warm = out / f"{model}_model" / "warmup"
    warm.mkdir()
    for row in range(warmed(signature, golden)):
        for port in signature.inputs:
            array = golden[port.name][row] if signature.batched else golden[port.name]
            (warm / f"golden{row}.{port.name}").write_bytes(np.ascontiguousarray(array).tobytes())
    steps: list[tuple[str, tuple[str, ...]]] = [("_pre", (SIGNATURE, ENCODER))] if raw else []
    steps += [("_post", (SIGNATURE, ENCODER, REVIEW))] if signature.batched else []
    for step, files in steps:
        place = out / f"{model}{step}" / number
        place.mkdir()
        _add_code(place, code / f"{step}.py", tuple(code / name for name in MODULES))
        for name in files:
            if (package / name).is_file():
                shutil.copy2(package / name, place / name)


def _add_code(place: Path, main: Path, modules: tuple[Path, ...]) -> None:
    """What a python step imports, beside it."""
    shutil.copy2(main, place / "model.py")
    for module in modules:
        shutil.copy2(module, place / module.name)
    shutil.copytree(Path(bare.__file__).parent, place / BARE, ignore=shutil.ignore_patterns("__pycache__"))
    # A file where Python would put its folder: bytecode written beside the code would make the next load start the step anew.
    (place / "__pycache__").touch()
    (place / BARE / "__pycache__").touch()


def _readme(model: str, signature: Signature, form: tuple[RawInput, ...], options: Production) -> str:
    """How to run it, and what has not been tried."""
    gpus = " --gpus all" if options.target == "gpu" else ""
    cache = f" -v trt-cache:{CACHE}" if options.tensorrt else ""
    raw = ", ".join(f"`{one.name}` {'BYTES' if one.is_bytes else 'FP64'} [n, 1]" for one in form)
    sent = ", ".join(
        f"`{port.name}` {port.dtype} {['n', *port.shape] if signature.batched else list(port.shape)}"
        for port in signature.inputs
    )
    sent = f"{raw}; or the tensors: {sent}" if raw else sent
    logged = (
        "## The request log\n\n"
        f"`{model}_post` sends what was answered to the socket that the variable KFLOOP_LOG_SOCKET names. `kfloop collect`, a process beside the server,\n"
        "writes it to disk as section `serve.log` of the loop file says:\n\n"
        "```bash\nkfloop collect -c loop.yaml --socket /run/kfloop/log.sock     # as a service, or a sidecar; ends with SIGTERM\n"
        "# and the server with: -v /run/kfloop:/run/kfloop -e KFLOOP_LOG_SOCKET=/run/kfloop/log.sock\n```\n\n"
        "Both see the folder of the socket (in a pod: an emptyDir) and run as one user, or the server as root, because `settings.json` beside the\n"
        "socket may hold a key. Rows go to the loop's own log, where `kfloop monitor` and `kfloop feedback` find them; `--out DIR` writes them elsewhere:\n"
        "bring that folder to `.kfloop/requests` where the monitor runs,\n"
        "or name a place for all servers in key `requests` of the loop file, such as `s3://bucket/requests`. Without the variable nothing is logged, and nothing before `kfloop collect` ran\n"
        "once; one that is slow or away loses log rows, never requests, and counts them in `counts.json`.\n"
        if signature.batched
        else "Requests of models without a batch axis are not logged.\n"
    )
    untried = (
        "The onnxruntime backend and TensorRT did not run\nwhere this was written: ask the golden requests before traffic comes."
        if options.backend == "onnxruntime"
        else f"`{model}_model` runs in the python\nbackend, whose python needs NumPy and onnxruntime; the image above brings neither."
    )
    slow = (
        "TensorRT builds its engines at the first use of a shape, which takes minutes: keep the cache volume.\n\n"
        if options.tensorrt
        else ""
    )
    return (
        f"# {model}: Triton repository for {options.target}\n\n"
        f'```bash\ndocker run --rm{gpus} -p 127.0.0.1:8000-8002:8000-8002 -v "$PWD":/models:ro{cache} {IMAGE} \\\n'
        "  tritonserver --model-repository=/models --model-control-mode=none --exit-on-error=true\n```\n\n"
        f"Clients ask `{model}`: {sent}.\n\n"
        f"Take this image or a later one: earlier ones can be crashed, or taken over, by a request. Put TLS, limits and authentication in front.\n\n"
        f"{slow}{logged}\n"
        f"kfloop checked these configurations against Triton's schema and the wiring of the steps. {untried}\n"
    )
