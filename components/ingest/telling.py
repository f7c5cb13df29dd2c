"""What a person should know about an ingest: rows set aside, repeated and contradicting rows, lopsided classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from kfloop.components.ingest.sources import SourceInfo

NAMED = 5  # rows named in a message
LISTED = 100
LOPSIDED = 10.0  # largest class over smallest class that is worth a warning
MOST_COMPARED = 200_000  # rows among which repetitions are looked for here; check_labels looks among all


class Teller:
    """Watches rows go by."""

    def __init__(self) -> None:
        self.quarantined: list[dict[str, str]] = []
        self._unasked = 0
        self._seen: dict[str, tuple[str, Any]] = {}
        self._same: list[tuple[str, str]] = []
        self._conflicts: list[tuple[str, str]] = []
        self._rows = 0
        self._official: set[str] = set()
        self._timed = False

    def set_aside(self, rows: Sequence[Mapping[str, str]], origin: str, *, by_people: bool = False) -> None:
        """Note rows that are left out; those that people called unusable do not count as damage."""
        self.quarantined += [{"origin": origin, **row} for row in rows]
        self._unasked += 0 if by_people else len(rows)

    def see(self, table: pa.Table, content: pa.Array) -> None:
        """Note rows that are kept, and whether they repeat or contradict earlier ones."""
        self._rows += table.num_rows
        if "split" in table.column_names:
            self._official.update(table["split"].drop_null().unique().to_pylist())
        self._timed = self._timed or "time" in table.column_names
        if self._rows > MOST_COMPARED:
            return
        labels = table["label"].to_pylist() if "label" in table.column_names else [None] * table.num_rows
        for name, text, label in zip(table["id"].to_pylist(), content.to_pylist(), labels, strict=True):
            first, given = self._seen.setdefault(text, (name, label))
            if first != name:
                (self._same if given == label else self._conflicts).append((first, name))

    def refuse_too_many(self, allowed: float) -> None:
        """Stop when more rows were set aside than the loop file allows.

        Raises:
            InputError: They are named, with their reasons.
        """
        total = self._rows + len(self.quarantined)
        share = self._unasked / total if total else 0.0
        if share > allowed:
            named = "; ".join(f"'{line['id']}': {line['reason']}" for line in self.quarantined[:NAMED])
            more = f"; and {len(self.quarantined) - NAMED} more" if len(self.quarantined) > NAMED else ""
            raise InputError(
                f"{self._unasked} of {total} rows cannot be used ({share:.0%}, allowed {allowed:.0%}): {named}{more}",
                hint="mend or remove these rows, or raise data.max_quarantined_share",
                quarantined=[line["id"] for line in self.quarantined[:LISTED]],
            )

    def warnings(self, info: SourceInfo, card: Mapping[str, Any]) -> list[str]:
        """Sentences for people."""
        found = list(info.notes)
        found += [f"'{line['id']}' was set aside: {line['reason']}" for line in self.quarantined[:NAMED]]
        if len(self.quarantined) > NAMED:
            found.append(f"{len(self.quarantined) - NAMED} more rows were set aside, see quarantine.jsonl")
        counts = {label: sum(part[label] for part in card["per_class"].values()) for label in card["labels"]}
        if counts:
            most, least = max(counts, key=lambda key: counts[key]), min(counts, key=lambda key: counts[key])
            if counts[most] > LOPSIDED * counts[least]:
                found.append(f"class '{most}' has {counts[most]} rows, class '{least}' only {counts[least]}")
        for split, classes in card["per_class"].items():
            absent = [label for label, count in classes.items() if not count] if card["task"] == "multiclass" else []
            if absent and split != "rest":
                found.append(
                    f"class '{absent[0]}' has no row in the {split} split"
                    + (f" ({len(absent) - 1} more)" if absent[1:] else "")
                )
        found += self._about_splits(card)
        if card["modality"] != "series":
            found += self._repetitions()
        return found

    def _about_splits(self, card: Mapping[str, Any]) -> list[str]:
        """What the splits have that nobody asked for."""
        method, splits = card["split"]["method"], card["splits"]
        if method == "official" and self._official:
            return [
                f"the source has no {name} split: {splits[name]} rows of its train split were taken for it"
                for name in ("validation", "test")
                if splits.get(name) and name not in self._official
            ]
        if method in {"random", "stratified"} and self._timed:
            late = (
                f"rows have times, but their split is {method}: what is learned from may be later than what is tested"
            )
            return [f"{late}; to test on the latest rows set data.split.method: time"]
        return []

    def _repetitions(self) -> list[str]:
        """Rows of equal content share a split, so they do not leak, but they count twice."""
        found = []
        if self._same:
            first, second = self._same[0]
            found.append(f"{len(self._same)} rows repeat the content of another, such as '{second}' and '{first}'")
        if self._conflicts:
            first, second = self._conflicts[0]
            found.append(
                f"{len(self._conflicts)} rows have equal content but another label, such as '{second}' and '{first}'"
            )
        return found
