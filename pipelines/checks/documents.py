"""Documents of a YAML or JSON file with the lines of what stands in them, and a compiled pipeline taken out of a manifest of Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Document = tuple[Any, Any]  # content, and the YAML node that knows its lines


class EmptyFileError(InputError):
    """A file without content."""


def read_documents(file: Path) -> list[Document]:
    """Documents of a YAML or JSON file, each with the node that knows its lines.

    Raises:
        InputError: Not a file that can be read as YAML.
        EmptyFileError: Nothing in it.
    """
    import yaml

    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = []
    try:
        loader = loader_class(file.read_text(encoding="utf-8"))
        try:
            while loader.check_node():
                node = loader.get_node()
                documents.append((loader.construct_document(node), node))
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"'{file}' is not valid YAML: {' '.join(str(error).split())}") from error
    if all(content is None for content, _ in documents):
        raise EmptyFileError(f"'{file}' is empty")
    return documents


def unwrapped(file: Path, documents: list[Document]) -> list[Document]:
    """Pipeline and platform as KFP compiles them, out of the manifest ``PipelineVersion`` that it compiles to for GitOps; else the documents as they are.

    Raises:
        InputError: It holds more than one of them.
    """
    found = [(content, node) for content, node in documents if _is_version(content)]
    if len(found) > 1:
        raise InputError(f"'{file}' holds {len(found)} manifests PipelineVersion, expected one: give each a file")
    for content, node in found:
        inner = content["spec"]
        keys = [key for key in ("pipelineSpec", "platformSpec") if inner.get(key) is not None]
        return [(inner[key], _below(_below(node, "spec"), key)) for key in keys] or documents
    return documents


def _is_version(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and content.get("kind") == "PipelineVersion"
        and str(content.get("apiVersion")).startswith("pipelines.kubeflow.org/")
        and isinstance(content.get("spec"), dict)
    )


def _below(node: Any, key: str) -> Any:
    return next((pair[1] for pair in node.value if key_of(pair) == key), node)


def key_of(pair: Any) -> str | None:
    """Key of a pair of a YAML mapping; null for an item of a list."""
    return pair[0].value if isinstance(pair, tuple) else None
