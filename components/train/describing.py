"""A model that somebody else serves, in the place of a training: nothing is learned, what must be said to it is written down."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from kfloop.components.train.resuming import work_folder
from kfloop.components.train.tensors import tensors_of
from kfloop.core.artifacts import folder_digest, write_report
from kfloop.core.encoding import encoder_class, fit_encoder
from kfloop.core.external import ADAPTER, DESCRIPTION
from kfloop.core.external.remote import FORMAT, PACKED, ROW, ROWS, load_adapter
from kfloop.core.external.rows import BadRows
from kfloop.core.families import OBJECTIVE_OF_TASK
from kfloop.core.own_code import adapter_file
from kfloop.core.scoring import ENCODER, TRAIN_CONTENT
from kfloop.core.sections import AdapterConfig
from kfloop.core.signature import OUTPUTS
from kfloop.core.versions import read_version
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.train.training import TrainReport
    from kfloop.core.sections import ExternalConfig, TrainConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

EXTERNAL = "external"  # name of the family
MODALITIES = ("image", "audio", "text", "table", "vector", "series")
TOLD = (
    "protocol",
    "url",
    "model",
    "version",
    "revision",
    "token_env",
    "token_header",
    "price_per_1000",
    "price_of",
    "batch",
)


def describe(
    config: TrainConfig, external: ExternalConfig, dataset: Path, labels: Path, out: Path, workspace: Workspace
) -> TrainReport:
    """Write which model is asked, and how.

    Args:
        config: Section ``train``.
        external: Section ``train.external``.
        dataset: Dataset version.
        labels: Output of ``check_labels``; what it says is for trainings alone.
        out: Empty folder for ``external.json``, ``encoder.json``, the adapter's file and ``report.json``.
        workspace: The loop's places; the adapter's module is looked for beside the loop file.

    Raises:
        ConfigError: An endpoint cannot take such rows, or the section does not fit the data or the endpoint.
        ServerUnavailable: The server (kserve) does not answer.
    """
    from kfloop.components.train.training import TrainReport

    started = time.monotonic()
    version = read_version(dataset)
    _refuse(config, external, version)
    objective = OBJECTIVE_OF_TASK[version.task]
    encoder = encoder_class("rows").fit(version) if version.modality in PACKED else fit_encoder(version)
    told = external.model_dump(mode="json", include=set(TOLD) | {"timeout_seconds", "retries", "gives", "binary"})
    told |= {
        "format": FORMAT,
        "objective": objective,
        "modality": version.modality,
        "labels": list(version.labels),
        "endpoint_labels": list(external.labels) if external.labels else None,
        "shape": _shape(version, objective),
        "output": OUTPUTS[objective][0],
        "columns": [column["name"] for column in getattr(encoder, "columns", [])],
        "adapter": _adapter(external, workspace, out) if external.protocol == "json" else None,
    }
    if external.protocol == "kserve":
        told |= tensors_of(external, told, encoder)
    _write(out / DESCRIPTION, told)
    _write(out / ENCODER, encoder.plain())
    if external.unseen_rows:
        (out / TRAIN_CONTENT).write_text("", encoding="utf-8")
    labels_digest = folder_digest(labels)
    report = TrainReport(
        family=EXTERNAL,
        objective=objective,
        modality=version.modality,
        plan={},
        options={key: told[key] for key in TOLD} | {"unseen_rows": external.unseen_rows},
        epochs=0,
        best_epoch=0,
        history=[],
        parameters=0,
        seconds=time.monotonic() - started,
        throughput={},
        device="external",
        processes=0,
        seed=config.seed,
        resumed_from_epoch=None,
        mlflow_run_id="",  # nothing was trained
        dataset_digest=version.digest,
        labels_digest=labels_digest,
        n_train=0,
        n_quarantined=0,
        labels_shuffled=False,
        work=work_folder(workspace, config, version.digest, labels_digest).name,
        trials=[],
    )
    write_report(out, report)
    return report


def _refuse(config: TrainConfig, external: ExternalConfig, version: DatasetVersion) -> None:
    """Refuse what could only fail later.

    Raises:
        ConfigError: Data that no endpoint is asked about, other classes, keys of a training.
        InputError: No test rows.
    """
    if version.modality not in MODALITIES:
        raise ConfigError(
            f"train.external is set, but this loop has {version.modality} data: their rows cannot be sent one by one",
            hint=f"an external model takes {', '.join(MODALITIES)} data",
        )
    if external.labels is not None and sorted(external.labels) != sorted(version.labels):
        differing = sorted(set(external.labels) ^ set(version.labels))
        raise ConfigError(
            f"train.external.labels and the classes of the data differ in {differing or 'how often one is named'}",
            hint=f"name each of {list(version.labels)} once, in the order in which the endpoint answers",
        )
    kept = {"external", "seed", "price_per_hour", "watts"}
    idle = sorted(
        key
        for key, field in type(config).model_fields.items()
        if key not in kept and getattr(config, key) != field.get_default(call_default_factory=True)
    )
    if idle:
        raise ConfigError(
            f"train.{idle[0]} is set, but nothing is trained with train.external", hint=f"remove {', '.join(idle)}"
        )
    if not int(version.card["splits"].get("test", 0)):
        raise InputError(
            "the test split has no rows, so nothing can be compared", hint="add examples, or raise data.split.test"
        )


def _shape(version: DatasetVersion, objective: str) -> list[int]:
    """Axes of one answer."""
    if objective in {"classification", "multilabel"}:
        return [len(version.labels)]
    if objective == "forecasting":
        series = version.schema["series"]
        return [int(series["horizon"]), len(series["channels"])]
    return []


def _adapter(external: ExternalConfig, workspace: Workspace, out: Path) -> dict[str, Any]:
    """The adapter's words; the file of the user's functions is copied beside the description.

    Raises:
        ConfigError: A function is not there, or ``$row`` is asked for with several rows in a call.
    """
    adapter = external.adapter or AdapterConfig()
    text = json.dumps(adapter.body)
    if adapter.request is None and f'"{ROWS}"' not in text and f'"{ROW}"' not in text:
        raise ConfigError(
            f"train.external.adapter.body is {text}, which holds no row", hint=f"put '{ROWS}' where the rows go"
        )
    if adapter.request is None and f'"{ROW}"' in text and external.batch != 1:
        raise ConfigError(
            f"train.external.adapter.body takes one row ('{ROW}'), but batch is {external.batch}", hint="set batch: 1"
        )
    names = {key: name.split(":")[1] for key in ("request", "response") if (name := getattr(adapter, key))}
    file = adapter_file(external, workspace.root)
    if file is not None:
        if not file.is_file():
            raise ConfigError(
                f"train.external.adapter: there is no module at '{file}'", hint="paths are relative to the loop file"
            )
        shutil.copyfile(file, out / ADAPTER)
        try:
            module = load_adapter(out / ADAPTER)
        except BadRows as error:
            raise ConfigError(str(error), hint="it may import the standard library and NumPy alone") from error
        missing = [name for name in names.values() if not callable(getattr(module, name, None))]
        if missing:
            raise ConfigError(f"'{file}' has no function {', '.join(missing)}", hint="name it as module:function")
    return {"body": adapter.body, "answer": adapter.answer, "request": None, "response": None} | names


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
