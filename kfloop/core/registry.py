"""The model registry: MLflow's registered model of a loop, a projection of the ledger.

A package has one version, found again by the tag ``kfloop.digest``, so that registering twice gives one version. The
aliases ``champion``, ``previous`` and ``challenger`` follow the ledger and are never read as an authority. MLflow's
alias calls have no compare-and-set and keep no history; the ledger has both.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.addresses import hidden, redacted, resolved
from kfloop.core.mlflow_client import SQLITE, mlflow_client
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

DIGEST_TAG = "kfloop.digest"
REBUILD = "put the file aside and run the same command again: the registry is rebuilt from the ledger"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


class Registry:
    """Versions and aliases of one registered model.

    Args:
        uri: MLflow tracking and registry URI.
        model: Name of the registered model (the loop's name).
    """

    def __init__(self, uri: str, model: str) -> None:
        self.uri = uri
        self.model = model

    def versions(self) -> dict[int, str]:
        """Package digest of each version; empty text for a version that kfloop did not register."""
        with _translated(self.uri):
            found = mlflow_client(self.uri).search_model_versions(f"name='{self.model}'")
        return {int(version.version): version.tags.get(DIGEST_TAG, "") for version in found}

    def version_of(self, digest: str) -> int | None:
        """Version of a package; null when it is not registered."""
        return min((version for version, found in self.versions().items() if found == digest), default=None)

    def tags(self, version: int) -> dict[str, str]:
        """Tags of a version."""
        with _translated(self.uri):
            return dict(mlflow_client(self.uri).get_model_version(self.model, str(version)).tags)

    def register(self, digest: str, source: Path | str, *, tags: Mapping[str, str] | None = None) -> int:
        """Version of a package, made if there is none yet.

        Args:
            digest: Digest of the package.
            source: Where it lies: its folder, or its URL in an object store.
            tags: More tags; written on the existing version too.
        """
        version = self.version_of(digest)
        with _translated(self.uri):
            client = mlflow_client(self.uri)
            if version is None:
                self._ensure_model(client)
                made = client.create_model_version(self.model, source=self._source(source), tags={DIGEST_TAG: digest})
                version = int(made.version)
            for key, value in (tags or {}).items():
                client.set_model_version_tag(self.model, str(version), key, value)
        return version

    def restore(self, version: int, digest: str, source: Path | str) -> bool:
        """Register a package again under the number that the ledger knows it by, after the registry was lost.

        Numbers that are missing below it are filled with empty versions, because MLflow hands numbers out in order.

        Returns:
            Whether anything had to be done.

        Raises:
            StateError: The number belongs to another package.
        """
        found = self.versions()
        if found.get(version) == digest:
            return False
        if found and max(found) >= version:
            raise StateError(
                f"version {version} of '{self.model}' is package '{found.get(version, 'none')}' in the registry, but "
                f"'{digest}' in the ledger",
                hint="the ledger is right: put the registry aside and run the same command again, it is rebuilt",
            )
        with _translated(self.uri):
            client = mlflow_client(self.uri)
            self._ensure_model(client)
            made = 0
            while made < version:
                made = int(client.create_model_version(self.model, source=self._source(source)).version)
            client.set_model_version_tag(self.model, str(version), DIGEST_TAG, digest)
        return True

    def describe(self, version: int, text: str) -> None:
        """Set the description of a version (markdown)."""
        with _translated(self.uri):
            mlflow_client(self.uri).update_model_version(self.model, str(version), description=text)

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with _translated(self.uri):
            client = mlflow_client(self.uri)
            for key, value in tags.items():
                client.set_model_version_tag(self.model, str(version), key, value)

    def attach(self, run_id: str, folder: Path, name: str) -> bool:
        """Log a folder as an artifact of a training run.

        Returns:
            Whether MLflow knows the run.
        """
        from mlflow.exceptions import MlflowException

        with _translated(self.uri):
            client = mlflow_client(self.uri)
            try:
                client.get_run(run_id or "none")
            except MlflowException as error:
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return False
                raise
            client.log_artifacts(run_id, str(folder), artifact_path=name)
        return True

    def aliases(self) -> dict[str, int]:
        """Version by alias; empty before the first registration."""
        from mlflow.exceptions import MlflowException

        with _translated(self.uri):
            try:
                model = mlflow_client(self.uri).get_registered_model(self.model)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: int(version) for alias, version in model.aliases.items()}

    def project(self, aliases: Mapping[str, int | None]) -> list[str]:
        """Make aliases say what the ledger says.

        Args:
            aliases: Version by alias; null removes the alias. Aliases not named stay.

        Returns:
            One sentence for each alias that was changed.
        """
        present = self.aliases()
        changes = []
        with _translated(self.uri):
            client = mlflow_client(self.uri)
            for alias, version in aliases.items():
                if present.get(alias) == version:
                    continue
                if version is None:
                    client.delete_registered_model_alias(self.model, alias)
                else:
                    client.set_registered_model_alias(self.model, alias, str(version))
                changes.append(
                    f"alias {alias}: {present.get(alias, 'none')} -> {'none' if version is None else version}"
                )
        return changes

    def _source(self, source: Path | str) -> str:
        """Where a package lies, in a form that MLflow takes: a server refuses bare paths, for they would be those of its own disk."""
        served = resolved(self.uri).startswith(("http://", "https://"))
        return f"kfloop:{source}" if served and "://" not in str(source) else str(source)

    def _ensure_model(self, client: MlflowClient) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.model, tags={"kfloop.loop": self.model})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database driver raise into an error that names the registry."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    where = redacted(uri).removeprefix(SQLITE)
    local = where != redacted(uri)
    try:
        yield
    except SQLAlchemyError as error:
        reason = hidden(str(getattr(error, "orig", None) or error).strip(), uri)
        raise StateError(
            f"the MLflow registry '{where}' cannot be used: {reason}",
            hint=REBUILD if local else "does its server answer, and may we use it? then run the same command again",
            mlflow=where,
        ) from error
    except MlflowException as error:
        raise StateError(
            f"the MLflow registry '{where}' refused: {hidden(str(error).splitlines()[0], uri)}",
            hint="is another MLflow version writing to it, or is the file damaged?"
            if local
            else "does the server answer, and is it the MLflow version that kfloop wants?",
            mlflow=where,
            mlflow_code=error.error_code,
        ) from error
