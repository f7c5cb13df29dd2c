"""What must not stand in a pipeline: parameters that ask for a secret, and values that are one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir

SECRET = re.compile(
    r"(^|_)(password|passwd|passphrase|pwd|secret|token|credentials?|api_?key|access_?key|private_?key|signing_?key)(_|$)"
)
# A name that ends so says where the secret is, or counts something else: `secret_name`, `token_env`, `token_count`.
REFERENCE = re.compile(
    r"(^|_)(arn|columns?|count|endpoint|env|field|file|ids?|length|limit|names?|path|ref|scope|size|type|ur[il]|version)$"
)
# Tokens of a tokenizer, counts of them, and Kubernetes' word for the Secret of a registry by its name.
HARMLESS = re.compile(
    r"(^|_)((max|min|num|n|per|pad|eos|bos|unk|sep|cls|mask|special|stop|next|image)_token|pull_secret)$"
)
TEXTS = frozenset({"STRING", "LIST", "STRUCT"})
# What providers' keys look like; a URL with a password, and no place for one ({password}, $PASSWORD, %s, <password>); a key in PEM.
VALUES = re.compile(
    r"A[KS]IA[0-9A-Z]{16}|AIza[\w-]{35}|hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}|gh[pousr]_[A-Za-z0-9]{36}"
    r"|github_pat_\w{22,}|glpat-[\w-]{20}|xox[abprs]-[\w-]{10,}|hf_[A-Za-z0-9]{30,}|\bsk-(?!learn)[A-Za-z0-9_-]{20,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\w+://[^/\s:@{}<>]+:(?!%[s(]|(?i:pass|passwd|password|pwd|secret|token|x+)@)[^/\s:@${}<>*]+@"
)
SHOWN = 4


def is_secret_name(name: str) -> bool:
    """Whether a parameter or variable of this name would hold a secret."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    harmless = REFERENCE.search(words) or HARMLESS.search(words)
    return bool(SECRET.search(words)) and not harmless


def secret_parameters(ir: Ir) -> Iterator[Finding]:
    """Inputs of the pipeline and of each step that can hold one: no number, no truth value."""
    owners: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [(("root",), f"pipeline '{ir.name}'", ir.spec["root"])]
    owners += [
        (("components", name), f"component '{name.removeprefix('comp-')}'", component)
        for name, component in ir.components.items()
        if "dag" not in component
    ]
    for keys, owner, spec in owners:
        for name, parameter in ((spec.get("inputDefinitions") or {}).get("parameters") or {}).items():
            if is_secret_name(name) and parameter.get("parameterType", "STRING") in TEXTS:
                line = ir.line(*keys, "inputDefinitions", "parameters", name)
                yield Finding(ir.file, line, "secret-parameter", f"{owner} takes parameter '{name}'")


def secret_values(ir: Ir) -> Iterator[Finding]:
    """Anything in the file that looks like a key, and variables named like one with a value; never quoted in full."""
    for keys, value in _texts(ir.spec, ()):
        hit = VALUES.search(value)
        if hit:
            shown = f"{hit.group()[:SHOWN]}..."
            yield Finding(ir.file, ir.line(*keys), "secret-value", f"'{'.'.join(keys[-2:])}' holds '{shown}'")
    for label, executor in ir.executors.items():
        for variable in (executor.get("container") or {}).get("env") or []:
            name, value = str(variable.get("name", "")), str(variable.get("value", ""))
            if value and is_secret_name(name) and not VALUES.search(value):
                line = ir.line("deploymentSpec", "executors", label, "container", "env")
                yield Finding(ir.file, line, "secret-value", f"'{label}' sets variable '{name}' in plain text")


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with the mapping keys above it."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*keys, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, keys)
