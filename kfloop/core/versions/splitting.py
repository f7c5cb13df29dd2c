"""Which split a row falls into, and why it never changes: by a stable hash, or by cutoffs that the first version of a loop set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ConfigError, InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from kfloop.core.sections import SplitConfig

SPLITS = ("train", "validation", "test")
REST = "rest"
CODES = (*SPLITS, REST)
TRAIN, VALIDATION, TEST = range(3)
HASH_RANGE = float(1 << 64)
_TRAINED = 3  # rows a class needs so that each split can have one


def stable_share(text: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but ``text`` and ``purpose``."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=8).digest(), "big") / HASH_RANGE


def split_of(content: str, validation: float, test: float) -> str:
    """The split of a row with this content, by the method ``random``."""
    share = stable_share(content, "split")
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


def chosen_method(config: SplitConfig, modality: str, *, official: bool, grouped: bool, timed: bool) -> str:
    """The method in force.

    Args:
        config: Section ``data.split``.
        modality: What the rows are.
        official: Whether the source has splits of its own.
        grouped: Whether rows have groups.
        timed: Whether rows have times.

    Raises:
        ConfigError: The method asked for would let a group cross splits, or needs what the data do not have.
    """
    if modality == "series":
        if config.method not in {None, "time"}:
            raise ConfigError(
                f"data.split.method is '{config.method}', but windows of a series overlap: any method but time would "
                "train on what it tests",
                hint="set data.split.method: time, or leave it out",
            )
        if config.seed:
            _refuse_seed(config.seed, "time")
        return "time"
    if grouped and config.method in {"random", "stratified", "time"}:
        raise ConfigError(
            f"data.split.method is '{config.method}', but data.group is set: rows of a group would cross splits",
            hint="set data.split.method: group, or remove data.group",
        )
    if config.method == "group" and not grouped:
        raise ConfigError(
            "data.split.method is 'group', but the rows have no group", hint="name its column in data.group"
        )
    if config.method == "official" and not official:
        raise ConfigError(
            "data.split.method is 'official', but the source has no splits of its own",
            hint="name the column that holds them in data.split.column, or choose another method",
        )
    if config.method == "time" and not timed:
        raise ConfigError("data.split.method is 'time', but the rows have no time", hint="name its column in data.time")
    method = config.method or ("official" if official else "group" if grouped else "random")
    if config.seed and method in {"official", "time"}:
        _refuse_seed(config.seed, method)
    return method


def _refuse_seed(seed: int, method: str) -> None:
    """Refuse a seed where no row's split is drawn.

    Raises:
        ConfigError: Always.
    """
    fresh = "the source's own splits" if method == "official" else "the times of rows"
    raise ConfigError(
        f"data.split.seed is {seed}, but test rows are chosen by {fresh}, not by hash: the seed would change nothing",
        hint="leave it out; a fresh test set needs "
        + ("other splits in the source" if method == "official" else "later rows"),
    )


@dataclass(frozen=True, kw_only=True)
class Cutoffs:
    """What a later version needs to put a row where this one did.

    Attributes:
        method: Name of the method.
        validation: Share of the validation split.
        test: Share of the test split.
        classes: For ``stratified``: class name to the largest hash share of test, and of validation.
        groups: For ``group``: largest hash share of test, and of validation.
        times: For ``time``: first time of validation and of test, as numbers.
        seed: Draws the rows that are chosen by hash.
    """

    method: str
    validation: float
    test: float
    classes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    groups: tuple[float, float] | None = None
    times: tuple[float, float] | None = None
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For the card."""
        return {
            "method": self.method,
            "validation": self.validation,
            "test": self.test,
            "classes": {name: list(pair) for name, pair in self.classes.items()},
            "groups": None if self.groups is None else list(self.groups),
            "times": None if self.times is None else list(self.times),
            "seed": self.seed,
        }

    @staticmethod
    def from_card(card: Mapping[str, Any] | None, method: str, config: SplitConfig) -> Cutoffs:
        """Those of an earlier version's card, where it split by the same method, shares and seed; else new ones."""
        earlier = (card or {}).get("split") or {}
        before = (earlier.get("method"), earlier.get("validation"), earlier.get("test"), earlier.get("seed", 0))
        same = before == (method, config.validation, config.test, config.seed)
        classes = {name: (pair[0], pair[1]) for name, pair in earlier.get("classes", {}).items()} if same else {}
        times = earlier.get("times") if same and config.test_from is None else None
        groups = earlier.get("groups") if same else None
        return Cutoffs(
            method=method,
            validation=config.validation,
            test=config.test,
            classes=classes,
            groups=None if groups is None else (groups[0], groups[1]),
            times=None if times is None else (times[0], times[1]),
            seed=config.seed,
        )


def drawn(shares: np.ndarray, seed: int) -> np.ndarray:
    """Hash shares that another seed draws from these, float64 [N] in [0, 1); seed 0 leaves them as they are.

    Equal shares stay equal, so that like rows and rows of a group stay together. Mixed by the finalizer of SplitMix64 (Steele, Lea, Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    if not seed:
        return shares
    with np.errstate(over="ignore"):
        bits = np.asarray(shares * 2.0**53).astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return np.asarray((bits >> np.uint64(11)) / 2.0**53)


def class_cutoffs(shares: np.ndarray, validation: float, test: float) -> tuple[float, float]:
    """Largest share of test and of validation for the rows of one class; each split gets at least one of three rows.

    Args:
        shares: Hash share of each row in [0, 1), float64 [N].
        validation: Share of the validation split.
        test: Share of the test split.
    """
    ordered = np.unique(shares)  # rows with equal content cannot be told apart
    n = len(ordered)
    if n < _TRAINED:
        return test, test + validation
    tested = min(max(1, round(n * test)), n - 2)
    validated = min(max(1, round(n * validation)), n - tested - 1)
    edges = np.concatenate([(ordered[1:] + ordered[:-1]) / 2, [1.0]])
    return float(edges[tested - 1]), float(edges[tested + validated - 1])


def group_cutoffs(shares: np.ndarray, validation: float, test: float) -> tuple[float, float]:
    """Largest share of test and of validation for groups: the plain ones, unless these leave a split without a group.

    Args:
        shares: Hash share of each group, float64.
        validation: Share of the validation split.
        test: Share of the test split.

    Raises:
        InputError: There are fewer than three groups.
    """
    if len(shares) < _TRAINED:
        raise InputError(
            f"column 'group' has {len(shares)} different values: three splits by group need three or more",
            hint="leave data.group out (and {group} out of data.pattern), or bring rows of more groups",
        )
    filled = len(np.unique(codes_of_shares(shares, test, test + validation)))
    return (test, test + validation) if filled == len(SPLITS) else class_cutoffs(shares, validation, test)


def time_cutoffs(times: np.ndarray, validation: float, test: float) -> tuple[float, float]:
    """First time of the validation and of the test split, so that equal times share a split.

    Raises:
        InputError: There are fewer than three different times.
    """
    ordered = np.sort(times)
    if len(np.unique(ordered)) < _TRAINED:
        raise InputError(
            f"column 'time' has {len(np.unique(ordered))} different values: three splits by time need three or more",
            hint="name another column in data.time, or set data.split.method: random",
        )
    n = len(ordered)
    tested = ordered[min(n - 1, round(n * (1 - test)))]
    validated = ordered[min(n - 1, round(n * (1 - test - validation)))]
    return float(validated), float(tested)


def time_numbers(times: Any) -> np.ndarray:
    """A column of times as float64: seconds since 1970, or the number itself.

    Raises:
        InputError: A row has no time.
    """
    import pyarrow as pa

    array = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(
            f"row {row + 1} has no value in the time column, but data.split.method is 'time'",
            hint="fill it, or set data.split.method: random",
        )
    if pa.types.is_timestamp(array.type):
        micro = array.cast(pa.timestamp("us")).view(pa.int64()).to_numpy(zero_copy_only=False)
        return np.asarray(micro / 1e6)
    return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False))


def configured_times(config: SplitConfig) -> tuple[float, float] | None:
    """The cutoffs that the configuration names, as numbers.

    Raises:
        ConfigError: One is neither a number nor an ISO 8601 time, or they are in the wrong order.
    """
    if config.validation_from is None or config.test_from is None:
        return None
    found = (_moment(config.validation_from, "validation_from"), _moment(config.test_from, "test_from"))
    if found[0] >= found[1]:
        raise ConfigError(
            f"data.split.validation_from '{config.validation_from}' is not before test_from '{config.test_from}'",
            hint="rows are trained on before validation_from, and tested on from test_from on",
        )
    return found


def _moment(text: str, key: str) -> float:
    from datetime import UTC, datetime

    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"data.split.{key} is '{text}': expected a number or a time such as 2024-05-01T00:00:00", hint=str(error)
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def official_codes(names: Any) -> np.ndarray:
    """Codes of a ``split`` column; a missing name is REST.

    Raises:
        InputError: A name is no split.
    """
    encoded = names.dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    known = []
    for name in encoded.dictionary.to_pylist():
        if name not in CODES:
            raise InputError(f"'{name}' is no split: expected {', '.join(CODES)}", hint=nearest(str(name), CODES))
        known.append(CODES.index(name))
    codes = np.array([*known, CODES.index(REST)], dtype=np.int8)
    return codes[encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]


def codes_of_shares(shares: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Test below ``low``, validation below ``high``, else train; int8 [N]."""
    return np.where(shares < low, TEST, np.where(shares < high, VALIDATION, TRAIN)).astype(np.int8)


def text_shares(texts: pa.Array | Sequence[str]) -> np.ndarray:
    """Stable share of each text, float64 [N]; each distinct text is hashed once."""
    import pyarrow as pa

    array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, type=pa.string())
    encoded = array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    known = np.array([stable_share(text, "split") for text in encoded.dictionary.to_pylist()], dtype=np.float64)
    return known[encoded.indices.to_numpy(zero_copy_only=False)] if len(array) else np.empty(0)
