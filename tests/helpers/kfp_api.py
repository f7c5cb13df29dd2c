"""What Kubeflow Pipelines publishes of its API: routes, query parameters, bodies and models, read out of ``kfp_server_api``.

That package is generated from the published OpenAPI file and does not carry it; the generated code holds the same facts.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import kfp_server_api
from jsonschema import Draft202012Validator
from kfp_server_api import models

SERVICES = ("ExperimentServiceApi", "RunServiceApi", "RecurringRunServiceApi")
PRIMITIVES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {},
    "datetime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One operation of the API."""

    name: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    body: str | None
    answer: str


@cache
def routes() -> tuple[Route, ...]:
    """Every operation of experiments, runs and recurring runs."""
    found = []
    for service in SERVICES:
        for name, function in inspect.getmembers(getattr(kfp_server_api, service), inspect.isfunction):
            if not name.endswith("_with_http_info"):
                continue
            source = inspect.getsource(function)
            path, method = re.search(r"call_api\(\s*'([^']+)', '(\w+)'", source).groups()  # type: ignore[union-attr]
            body = re.search(r"body_params = local_var_params\['(\w+)'\]", source)
            kind = re.search(rf":type {body[1]}: (\w+)", source) if body else None
            answer = re.search(r"response_type='(\w+)'", source)
            found.append(
                Route(
                    name=name.removesuffix("_with_http_info"),
                    method=method,
                    path=re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path) + r"$"),
                    query=frozenset(re.findall(r"query_params\.append\(\('(\w+)'", source)),
                    body=kind[1] if kind else None,
                    answer=answer[1] if answer else "object",
                )
            )
    return tuple(found)


def route_of(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The operation that a request asks for, with its path parameters."""
    for route in routes():
        match = route.path.match(path)
        if match and route.method == method:
            return route, match.groupdict()
    return None


def problems(kind: str, value: Any) -> list[str]:
    """What is wrong with ``value`` as the model ``kind``; unknown keys, types and words of enumerations included."""
    return [f"{kind}{error.json_path[1:]}: {error.message}" for error in _validator(kind).iter_errors(value)]


@cache
def _validator(kind: str) -> Draft202012Validator:
    definitions: dict[str, Any] = {}
    schema = _schema(kind, definitions)
    return Draft202012Validator(schema | {"$defs": definitions})


def _schema(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind in PRIMITIVES:
        return PRIMITIVES[kind]
    if kind.startswith("list["):
        return {"type": "array", "items": _schema(kind[5:-1], definitions)}
    if kind.startswith("dict("):
        return {"type": "object", "additionalProperties": _schema(kind[5:-1].partition(", ")[2], definitions)}
    if kind not in definitions:
        definitions[kind] = {}  # models refer to each other
        model = getattr(models, kind)
        if hasattr(model, "allowable_values"):
            definitions[kind] = {"enum": model.allowable_values}
        else:
            names = model.attribute_map
            definitions[kind] = {
                "type": "object",
                "properties": {names[key]: _schema(value, definitions) for key, value in model.openapi_types.items()},
                "additionalProperties": False,
            }
    return {"$ref": f"#/$defs/{kind}"}
