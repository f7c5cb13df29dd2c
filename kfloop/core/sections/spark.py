"""Section ``spark``: where Spark runs, for the steps that take it."""
# ruff: noqa: RUF012 - pydantic gives each section a copy of a default

from __future__ import annotations

import re

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from kfloop.core.sections.base import Section


class SparkConfig(Section):
    """Where Spark runs, for the steps whose ``engine`` is ``spark``."""

    master: str | None = None
    """Spark's master: ``local[*]``, ``spark://HOST:PORT``, ``k8s://https://HOST:PORT`` or ``yarn``; null: ``KFLOOP_SPARK_MASTER``, or all cores of this machine."""
    folder: str | None = None
    """Folder for the tables that Spark is given, which this process and all executors see, or ``s3://bucket/path`` (validation only); null: ``.kfloop/spark`` of the loop. A table is deleted when it was judged."""
    settings: dict[str, str] = {}
    """Properties of Spark, such as ``spark.driver.memory: 4g``. Credentials do not belong here: Spark takes those of S3 from the environment."""

    @field_validator("folder")
    @classmethod
    def _a_folder(cls, folder: str | None) -> str | None:
        if folder is not None and "://" in folder and not folder.startswith("s3://"):
            message = f"'{folder}' is an address: expected s3://bucket/path, or a folder, on a shared volume where executors are elsewhere"
            raise ValueError(message)
        return folder

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, str]) -> dict[str, str]:
        for name in settings:
            if not name.startswith("spark."):
                message = f"'{name}' is no property of Spark: they begin with spark."
                raise ValueError(message)
            if re.match(r"spark\.kubernetes\.(driver|executor)\.secretKeyRef\.", name):
                continue  # names a Secret and its key
            if re.search(r"(secret|password|token|access\.key|credential(?!s\.provider))", name, re.IGNORECASE):
                raise PydanticCustomError("secret", "credentials are no settings; give them by the environment")
        return settings
