"""Who asks Kubeflow Pipelines: the headers of one request, from what ``cluster.auth`` refers to.

The secret is read anew for each request, because the kubelet and most login tools replace a token file before the token ends. It stands in
no message: ``Credentials.hide`` takes it out of what a server says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from kfloop.core.cluster import AuthConfig

# Where Kubeflow mounts the token of a pod's service account, and the variable that names another place (kfp.Client reads both).
MOUNTED_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a place
MOUNTED_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - a name


class Credentials:
    """The secret behind a reference.

    Args:
        config: ``cluster.auth``.
        root: Folder that a relative ``file`` is taken from.
    """

    def __init__(self, config: AuthConfig, root: Path) -> None:
        self._config = config
        self._root = root

    def headers(self) -> dict[str, str]:
        """Headers that tell who asks.

        Raises:
            ConfigError: The reference leads nowhere, or to what no header can carry.
        """
        secret = self._secret()
        if not secret:
            return {}
        return {"Cookie": secret} if self._config.kind == "cookie" else {"Authorization": f"Bearer {secret}"}

    def hide(self, text: str) -> str:
        """``text`` without the secret, should a server have repeated it."""
        try:
            secret = self._secret()
        except ConfigError:
            return text
        return text.replace(secret, "(hidden)") if secret else text

    def __str__(self) -> str:
        """The reference, for messages; never the secret."""
        if self._config.kind == "none":
            return "none (cluster.auth.kind: none)"
        place = f"variable {self._config.env}" if self._config.env else f"file '{self._file()}'"
        return f"{self._config.kind} in {place}"

    def _file(self) -> Path:
        if self._config.file is None:
            return Path(os.environ.get(MOUNTED_TOKEN_VARIABLE, MOUNTED_TOKEN))
        return self._root / Path(self._config.file).expanduser()

    def _secret(self) -> str:
        if self._config.kind == "none":
            return ""
        if self._config.env is not None:
            secret = os.environ.get(self._config.env, "").strip()
            if not secret:
                raise ConfigError(
                    f"cluster.auth: the environment variable '{self._config.env}' is not set, or empty",
                    hint=f"export {self._config.env}=... (the {self._config.kind} of your login)",
                )
        else:
            try:
                secret = self._file().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"cluster.auth: the {self._config.kind} cannot be read from '{self._file()}': {type(error).__name__}",
                    hint="is the file there, and may you read it?",
                ) from error
            if not secret:
                raise ConfigError(f"cluster.auth: '{self._file()}' is empty", hint="log in again to fill it")
        if not (secret.isascii() and secret.isprintable()):
            message = f"cluster.auth: {self} holds line breaks or signs that no header can carry (not shown)"
            raise ConfigError(message, hint="it must hold the token or cookie and nothing else")
        return secret
