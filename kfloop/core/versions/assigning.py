"""Giving each row its split, batch by batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.versions.splitting import (
    CODES,
    REST,
    TEST,
    TRAIN,
    VALIDATION,
    Cutoffs,
    class_cutoffs,
    codes_of_shares,
    drawn,
    group_cutoffs,
    official_codes,
    text_shares,
    time_cutoffs,
    time_numbers,
)
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa


class Splitter:
    """Assigns splits by the cutoffs of this version, which it learns first where an earlier version left none.

    Args:
        cutoffs: Method, shares, and what an earlier version fixed.
        labels: Class names by index; empty without classes.
        modality: What the rows are; groups of a series are its channels' owners and do cross splits in time.
    """

    def __init__(self, cutoffs: Cutoffs, labels: Sequence[str], modality: str) -> None:
        self.cutoffs = cutoffs
        self.labels = list(labels)
        self.modality = modality
        self._places: dict[str, int] = {}
        self._carve = False

    @property
    def must_learn(self) -> bool:
        """Whether all rows must be seen before the first can be placed."""
        if self.cutoffs.method == "time":
            return self.cutoffs.times is None
        if self.cutoffs.method == "group":
            return self.cutoffs.groups is None
        if self.cutoffs.method == "stratified":
            return any(name not in self.cutoffs.classes for name in self.labels)
        return self.cutoffs.method == "official"

    def learn(self, parts: Iterable[tuple[pa.Table, np.ndarray]]) -> None:
        """Fix the cutoffs that are missing.

        Args:
            parts: Tables of rows with their hash shares float64 [N].
        """
        if self.cutoffs.method == "official":
            self._carve = not any((official_codes(table["split"]) == VALIDATION).any() for table, _ in parts)
        elif self.cutoffs.method == "time":
            times = np.concatenate([time_numbers(table["time"]) for table, _ in parts])
            found = time_cutoffs(times, self.cutoffs.validation, self.cutoffs.test)
            self.cutoffs = replace(self.cutoffs, times=found)
        elif self.cutoffs.method == "group":
            known = {share for table, _ in parts for share in np.unique(self._group_shares(table)).tolist()}
            found = group_cutoffs(np.array(sorted(known)), self.cutoffs.validation, self.cutoffs.test)
            self.cutoffs = replace(self.cutoffs, groups=found)
        else:
            self._learn_classes(parts)

    def _learn_classes(self, parts: Iterable[tuple[pa.Table, np.ndarray]]) -> None:
        seen = [(table["label"].to_numpy(), shares) for table, shares in parts]
        labels = np.concatenate([label for label, _ in seen]) if seen else np.empty(0, np.int64)
        shares = self._drawn(np.concatenate([share for _, share in seen])) if seen else np.empty(0)
        classes = dict(self.cutoffs.classes)
        for index, name in enumerate(self.labels):
            if name not in classes:
                classes[name] = class_cutoffs(shares[labels == index], self.cutoffs.validation, self.cutoffs.test)
        self.cutoffs = replace(self.cutoffs, classes=classes)

    def assign(self, table: pa.Table, shares: np.ndarray) -> np.ndarray:
        """Split codes of rows, int8 [N].

        Args:
            table: Rows with the columns that the method needs.
            shares: Hash share of each row, float64 [N].

        Raises:
            InputError: The source's own splits tear a group apart.
        """
        low, high = self.cutoffs.test, self.cutoffs.test + self.cutoffs.validation
        shares = self._drawn(shares)
        if self.cutoffs.method == "time":
            return self._by_time(table)
        if self.cutoffs.method == "official":
            codes = official_codes(table["split"])
            if self._carve:
                grouped = text_shares(table["group"]) if "group" in table.column_names else shares
                carved = grouped < self.cutoffs.validation / (1.0 - self.cutoffs.test)
                codes = np.where((codes == TRAIN) & carved, VALIDATION, codes).astype(np.int8)
            self._refuse_torn_groups(table, codes)
            return codes
        if self.cutoffs.method == "group":
            return codes_of_shares(self._group_shares(table), *(self.cutoffs.groups or (low, high)))
        if self.cutoffs.method == "stratified":
            pairs = np.array([self.cutoffs.classes[name] for name in self.labels])
            labels = table["label"].to_numpy()
            return codes_of_shares(shares, pairs[labels, 0], pairs[labels, 1])
        return codes_of_shares(shares, low, high)

    def _drawn(self, shares: np.ndarray) -> np.ndarray:
        return drawn(shares, self.cutoffs.seed)

    def _group_shares(self, table: pa.Table) -> np.ndarray:
        return self._drawn(text_shares(table["group"]))

    def _by_time(self, table: pa.Table) -> np.ndarray:
        if self.cutoffs.times is None:
            message = "cutoffs in time were never learned"
            raise RuntimeError(message)
        times = time_numbers(table["time"])
        validated, tested = self.cutoffs.times
        return np.where(times >= tested, TEST, np.where(times >= validated, VALIDATION, TRAIN)).astype(np.int8)

    def _refuse_torn_groups(self, table: pa.Table, codes: np.ndarray) -> None:
        if "group" not in table.column_names or self.modality == "series":
            return
        for row, (group, code) in enumerate(zip(table["group"].to_pylist(), codes.tolist(), strict=True)):
            first = self._places.setdefault(group, code)
            if REST not in {CODES[first], CODES[code]} and first != code:
                raise InputError(
                    f"group '{group}' stands in the source's split '{CODES[first]}' and, with row "
                    f"'{table['id'][row].as_py()}', in '{CODES[code]}': a group must not cross splits",
                    hint="mend the split column, or set data.split.method: group",
                    group=group,
                )
