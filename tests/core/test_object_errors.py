"""Errors as the clients of object stores really raise them, and what each of them means."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kfloop.core.object_errors import failure, kind_of
from kfloop.errors import ConfigError, InputError, KfloopError, StateError, TransientError


def of_s3(code: str) -> OSError:
    """What s3fs makes of an answer with this code."""
    from botocore.exceptions import ClientError

    errors: Any = pytest.importorskip("s3fs.errors")
    return errors.translate_boto_error(ClientError({"Error": {"Code": code, "Message": f"said {code}"}}, "GetObject"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", "refused"),
        ("InvalidAccessKeyId", "refused"),
        ("SignatureDoesNotMatch", "refused"),
        ("403", "refused"),
        ("ExpiredToken", "refused"),
        ("NoSuchBucket", "absent"),
        ("NoSuchKey", "absent"),
        ("404", "absent"),
        ("InvalidBucketName", "setting"),
        ("SlowDown", "passing"),
        ("InternalError", "passing"),
        ("503", "passing"),
        ("RequestTimeout", "passing"),
        ("a code that nobody knows", "passing"),
    ],
)
def test_what_s3_answers(code: str, kind: str) -> None:
    assert kind_of(of_s3(code)) == kind


def test_what_clients_and_this_disk_raise() -> None:
    from botocore import exceptions as boto

    for error, kind in (
        (boto.NoCredentialsError(), "refused"),
        (boto.ProfileNotFound(profile="x"), "refused"),
        (boto.EndpointConnectionError(endpoint_url="http://x"), "passing"),
        (boto.ReadTimeoutError(endpoint_url="http://x"), "passing"),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), "passing"),
        (boto.ConnectionClosedError(endpoint_url="http://x"), "passing"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "passing"),
        (TimeoutError(), "passing"),
        (OSError(errno.ENOSPC, "No space left on device", "/here"), "disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/here"), "disk"),
        (ModuleNotFoundError("No module named 'dvc_s3'"), "package"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "bucket/x"), "absent"),
    ):
        assert kind_of(error) == kind, error


def test_the_first_of_a_chain_that_is_known_tells() -> None:
    def raised(inner: Exception) -> Exception:
        outer = LookupError("failed to load directory")  # as DVC's index does
        outer.__cause__ = inner
        return outer

    error = failure(raised(of_s3("AccessDenied")), "s3://bucket/x", "it cannot be read", absent="")
    assert type(error) is InputError
    assert error.message == "it cannot be read: said AccessDenied"
    assert "AWS_ACCESS_KEY_ID" in error.hint
    # What was looked for before in vain, as in a cache, is not the reason.
    late = ConnectionResetError("reset")
    late.__context__ = FileNotFoundError("cache/x")
    assert kind_of(raised(late)) == "passing"


def test_each_kind_is_an_error_of_its_own_with_a_next_step() -> None:
    said: list[KfloopError] = [
        failure(error, "s3://bucket/x", "it failed", absent="push it", terminal=StateError)
        for error in (ImportError("no s3fs"), TimeoutError("late"), of_s3("NoSuchKey"), of_s3("AccessDenied"))
    ]
    assert [type(error) for error in said] == [ConfigError, TransientError, StateError, StateError]
    assert ["kfloop[s3]" in said[0].hint, "run it again" in said[1].hint, said[2].hint] == [True, True, "push it"]
    assert failure(said[0], "s3://bucket/x", "again", absent="") is said[0]


def test_a_fault_of_a_program_is_no_matter_of_the_network() -> None:
    with pytest.raises(AttributeError, match="no attribute"):
        failure(AttributeError("no attribute"), "s3://bucket/x", "it failed", absent="")


def test_a_secret_of_an_address_is_not_repeated() -> None:
    url = "ssh://me:hunter2hunter2@host/x"
    error = failure(ConnectionError(f"no answer from {url}"), url, "it failed", absent="")
    assert "hunter2" not in str(error.as_dict())
