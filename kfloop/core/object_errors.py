"""What an error of an object store or a DVC remote means: mend it, or try again.

Each client has errors of its own (s3fs, botocore, aiohttp, DVC), often one inside another. The first of the chain that is known tells.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal

from kfloop.core.addresses import hidden, redacted
from kfloop.errors import ConfigError, InputError, KfloopError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["package", "refused", "absent", "setting", "disk", "passing"]
PACKAGES = {
    "s3": 'pip install "kfloop[s3]"',
    "gs": "pip install dvc-gs gcsfs",
    "azure": "pip install dvc-azure adlfs",
    "abfs": "pip install adlfs",
    "ssh": "pip install dvc-ssh",
}
CREDENTIALS = (
    "may these credentials use it? those of S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is "
    "not Amazon's)"
)
# By name, so that no client need be installed here: botocore's, and DVC's own for remotes that are none.
_REFUSED = {
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
}
_SETTING = {
    "ConfigError",
    "RemoteConfigError",
    "NoRemoteError",
    "ParamValidationError",
    "InvalidEndpointConfigurationError",
}
_PACKAGE = {"RemoteMissingDepsError"}
_PASSING = {
    "ConnectionError",
    "TimeoutError",
    "HTTPClientError",
    "IncompleteReadError",
    "ClientConnectionError",
    "ClientPayloadError",
}
_FAULTS = (AttributeError, TypeError, NameError, AssertionError, NotImplementedError)
_PASSING_NUMBERS = {errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)}
_SETTING_NUMBERS = {errno.EINVAL, errno.ENOSYS}
_DISK_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def kind_of(error: BaseException) -> Kind:
    """What is wrong: a package is missing, the store refuses, it has no such thing, a setting is wrong, this disk is at fault, or it may pass."""
    return _known(error)[0]


def _known(error: BaseException) -> tuple[Kind, BaseException]:
    """What is wrong, and the error of the chain that tells."""
    found = ((_alone(one), one) for one in _chain(error))
    return next(((kind, one) for kind, one in found if kind is not None), ("passing", error))


def _alone(error: BaseException) -> Kind | None:
    """What one error tells by itself; null where it does not."""
    names = {kind.__name__ for kind in type(error).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    # A client of a store names no file in its errors; this disk does.
    here = number in _DISK_NUMBERS or (isinstance(error, PermissionError) and error.filename is not None)
    tests: tuple[tuple[Kind, bool], ...] = (
        ("passing", bool(names & _PASSING) or number in _PASSING_NUMBERS),
        ("package", isinstance(error, ImportError) or bool(names & _PACKAGE)),
        ("disk", here),
        ("refused", bool(names & _REFUSED)),
        ("setting", bool(names & _SETTING) or number in _SETTING_NUMBERS),
        ("absent", isinstance(error, FileNotFoundError)),
    )
    return next((kind for kind, met in tests if met), None)


def failure(
    error: BaseException, url: str, message: str, *, absent: str, terminal: type[TerminalError] = InputError
) -> KfloopError:
    """The error in kfloop's words.

    Args:
        error: What a client raised.
        url: The place, as its owner wrote it; secrets in it are not shown.
        message: What could not be done, without a reason.
        absent: What to do where the place or the thing is not there.
        terminal: Class of an error that must be mended.

    Raises:
        Exception: ``error`` itself, where it is a fault of a program.
    """
    if isinstance(error, KfloopError):
        return error
    if isinstance(error, _FAULTS):  # of a program, and no client's way to say anything
        raise error
    (kind, known), scheme = _known(error), url.partition("://")[0]
    reason = hidden(str(known) or repr(known), url)
    whole = f"{message}: {reason}"
    hints = {
        "refused": CREDENTIALS,
        "absent": absent,
        "setting": f"look at how '{redacted(url)}' is set up",
        "disk": "make room, or let this user write there",
    }
    if kind == "package":
        return ConfigError(whole, hint=PACKAGES.get(scheme, "install what it names"))
    if kind == "passing":
        return TransientError(whole, hint="is the server there, and the network? then run it again: what came is kept")
    return terminal(whole, hint=hints[kind])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
