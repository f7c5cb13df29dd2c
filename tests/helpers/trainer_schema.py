"""The schemas of Kubeflow Trainer's objects as strict JSON Schema: keys that they do not name are refused, as a test must and a server does not."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema

WRAPPED = {
    "IoK8sApimachineryPkgApiResourceQuantity": {"type": ["string", "number"]},
    "IoK8sApimachineryPkgUtilIntstrIntOrString": {"type": ["string", "integer"]},
}


@functools.cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    from kubeflow_trainer_api import models

    schema = getattr(models, f"TrainerV1alpha1{kind}").model_json_schema(by_alias=True)
    for name, definition in schema["$defs"].items():
        if name in WRAPPED:
            definition.clear()
            definition.update(WRAPPED[name])
    for definition in (schema, *schema["$defs"].values()):
        if "properties" in definition:
            definition["additionalProperties"] = False
            definition["properties"] = {key: _told(value) for key, value in definition["properties"].items()}
    return jsonschema.Draft202012Validator(schema)


def _told(field: dict[str, Any]) -> dict[str, Any]:
    """An optional field without its null: a manifest leaves out what it does not say."""
    others = [option for option in field.get("anyOf", []) if option != {"type": "null"}]
    return others[0] if len(others) == 1 else field


def problems(kind: str, plain: Any) -> list[str]:
    """What is wrong with a ``TrainJob`` or a ``ClusterTrainingRuntime``; empty where nothing is."""
    return [f"{error.json_path}: {error.message}" for error in _validator(kind).iter_errors(plain)]
