"""URLs of state, store and MLflow: secrets stand in them by reference, and never in a message.

``postgresql://kfloop:${KFLOOP_STATE_PASSWORD}@db/kfloop`` names an environment variable. The reference travels through parameters, records and
logs; its value is looked up where a connection is opened, and nowhere else.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

from kfloop.errors import ConfigError

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
PASSWORD = re.compile(r":/{0,2}[^:/@]*:(.+)@")
QUERY = re.compile(r"[?&]([^=&]+)=([^&]+)")
TELLING = (
    "passw",
    "pwd",
    "cred",
    "secret",
    "token",
    "key",
    "sig",
)  # parts of names of query parameters that hold a secret
HIDDEN = "***"
LEAST = 4  # characters; hiding a shorter text wherever it stands would spoil the rest of a message


def resolved(url: str) -> str:
    """The URL with each ``${NAME}`` replaced by the environment's value, quoted where it is a user, a password or a part of the query.

    Raises:
        ConfigError: The environment has no such variable.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        value = os.environ.get(name, "")
        if not value:
            raise ConfigError(
                f"'{redacted(url)}' needs the environment variable {name}, which is not set",
                hint=f"set {name}; on a cluster it comes from a Secret, see the section 'cluster' of the loop file",
                variable=name,
            )
        return quote(value, safe="") if "@" in url[match.end() :] or "?" in url[: match.start()] else value

    return REFERENCE.sub(value_of, url)


def secrets_of(url: str) -> list[str]:
    """What must not be shown of a URL: its password, and the values of query parameters that sound like one. References are none.

    A URL that is mistyped, or whose password should have been quoted, holds a secret all the same: so this looks for more than a URL may have.
    """
    found = [match.group(1) for match in [PASSWORD.search(url)] if match]
    found += [value for name, value in QUERY.findall(url) if any(word in name.lower() for word in TELLING)]
    return [secret for secret in found if not REFERENCE.fullmatch(secret)]


def redacted(url: str) -> str:
    """The URL as it may be shown."""
    for secret in secrets_of(url):
        url = url.replace(secret, HIDDEN)
    return url


def hidden(text: str, url: str) -> str:
    """``text`` (a driver's message) without the secrets of ``url``, whether they stand in it or are referred to.

    Args:
        text: What is to be shown.
        url: As the loop file has it.
    """
    try:
        opened = resolved(url)
    except ConfigError:
        opened = url
    if opened != url and REFERENCE.fullmatch(url):
        text = text.replace(opened, url)
    for secret in (*secrets_of(opened), *secrets_of(url)):
        for spelt in {secret, unquote(secret)}:
            if len(spelt) >= LEAST:
                text = text.replace(spelt, HIDDEN)
    return text
