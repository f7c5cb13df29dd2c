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
    return jsonschema.Draft202012Validator(schema)


def problems(kind: str, plain: Any) -> list[str]:
    """What is wrong with a ``TrainJob`` or a ``ClusterTrainingRuntime``; empty where nothing is."""
    return [f"{error.json_path}: {error.message}" for error in _validator(kind).iter_errors(plain)]
