"""Secrets stand in URLs by reference, and in no message at all."""

import pytest

from kfloop.core.addresses import hidden, redacted, resolved, secrets_of
from kfloop.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////work/.kfloop/state.db",
        "s3://bucket/kfloop/blobs",
        "http://mlflow.example:5000",
        "postgresql://kfloop@db:5432/kfloop",
        "postgresql://kfloop:${STATE_PASSWORD}@db/kfloop",
        "${STATE_URL}",
        "C:/work/store",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(url: str) -> None:
    assert secrets_of(url) == []
    assert redacted(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hunter2@db/x", "postgresql://u:***@db/x"),
        ("postgresql://u:hunt/er@2@db/x", "postgresql://u:***@db/x"),  # not quoted as it should be
        ("postgresql:/u:hunter2@db/x", "postgresql:/u:***@db/x"),
        ("postgresql://db/x?user=u&password=hunter2", "postgresql://db/x?user=u&password=***"),
        ("https://u:hunter2@mlflow/x?token=hunter3", "https://u:***@mlflow/x?token=***"),
        ("s3://id:hunter2@bucket", "s3://id:***@bucket"),
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert "hunter" not in hidden(f"cannot open {url}", url)


def test_references_are_looked_up_and_quoted_where_a_url_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_PASSWORD", "a/b@c")
    monkeypatch.setenv("STATE_URL", "postgresql://u:a%2Fb@db/x")
    assert resolved("postgresql://u:${STATE_PASSWORD}@db/x") == "postgresql://u:a%2Fb%40c@db/x"
    assert resolved("${STATE_URL}") == "postgresql://u:a%2Fb@db/x"
    monkeypatch.delenv("STATE_PASSWORD")
    with pytest.raises(ConfigError, match="STATE_PASSWORD, which is not set") as caught:
        resolved("postgresql://u:${STATE_PASSWORD}@db/x")
    assert caught.value.data == {"variable": "STATE_PASSWORD"}


def test_what_a_reference_stands_for_is_hidden_in_a_drivers_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_PASSWORD", "hunter/2")
    url = "postgresql://u:${STATE_PASSWORD}@db/x"
    assert "hunter" not in hidden("no such place: postgresql://u:hunter%2F2@db/x, hunter/2", url)
    monkeypatch.setenv("STATE_URL", "postgresql://u:hunter2@db/x")
    assert hidden("no such place: postgresql://u:hunter2@db/x", "${STATE_URL}") == "no such place: ${STATE_URL}"
