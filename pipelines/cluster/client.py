"""What kfloop asks of Kubeflow Pipelines (v2beta1): experiments, runs and recurring runs, each as the JSON object the API gives."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from kfloop.errors import InputError, TerminalError
from kfloop.pipelines.cluster.transport import JSON, NOT_FOUND, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAGE = 50
MAX_PAGES = 200


class Server(Transport):
    """One Kubeflow Pipelines API, as one user."""

    def experiment(self, name: str, namespace: str) -> str:
        """Id of the experiment called ``name``, made if there is none."""

        def find() -> JSON | None:
            wanted = _filter("EQUALS", "display_name", name)
            found = self._pages("experiments", "experiments", {"namespace": namespace, "filter": wanted})
            return next((one for one in found if one.get("display_name") == name), None)

        made = find() or self._create("experiments", {"display_name": name, "namespace": namespace}, find)
        return _text(made, "experiment_id")

    def create_run(self, run: JSON, find: Callable[[], JSON | None]) -> JSON:
        """Start a run; ``find`` looks for one that an attempt without an answer has started all the same."""
        return self._create("runs", run, find, {"experiment_id": run["experiment_id"]})

    def runs(self, namespace: str, experiment: str, marker: str) -> Iterator[JSON]:
        """Runs of an experiment whose description holds ``marker``, newest first."""
        query = {"namespace": namespace, "experiment_id": experiment, "sort_by": "created_at desc"}
        found = self._pages("runs", "runs", query | {"filter": _filter("IS_SUBSTRING", "description", marker)})
        return (run for run in found if marker in run.get("description", ""))

    def young_runs(self, namespace: str, experiment: str, since: datetime) -> Iterator[JSON]:
        """Runs of an experiment that were made since then, newest first."""
        query = {"namespace": namespace, "experiment_id": experiment, "sort_by": "created_at desc"}
        for run in self._pages("runs", "runs", query):
            if (made := _moment(run.get("created_at"))) is not None and made < since:
                return
            yield run

    def run(self, run_id: str) -> JSON:
        """One run with its tasks.

        Raises:
            InputError: There is no such run.
        """
        run = self.call("GET", f"runs/{quote(run_id, safe='')}")
        _text(run, "run_id")
        return run

    def terminate(self, run_id: str) -> None:
        """End a run."""
        self.call("POST", f"runs/{quote(run_id, safe='')}:terminate")

    def log(self, run_id: str, pod: str, namespace: str) -> str | None:
        """Log of a pod, from where KFP's own pages get it; null where this endpoint is the bare API, or the pod is gone."""
        return self.page("k8s/pod/logs", {"podname": pod, "runid": run_id, "podnamespace": namespace})

    def recurring(self, namespace: str) -> Iterator[JSON]:
        """All recurring runs of a namespace."""
        return self._pages("recurringruns", "recurringRuns", {"namespace": namespace})

    def create_recurring(self, wanted: JSON, find: Callable[[], JSON | None]) -> JSON:
        """Make a recurring run; ``find`` as for ``create_run``."""
        return self._create("recurringruns", wanted, find)

    def switch(self, recurring_run_id: str, *, on: bool) -> None:
        """Enable or disable a recurring run."""
        self.call("POST", f"recurringruns/{quote(recurring_run_id, safe='')}:{'enable' if on else 'disable'}")

    def delete_recurring(self, recurring_run_id: str) -> None:
        """Delete a recurring run; one that is gone already is fine."""
        try:
            self.call("DELETE", f"recurringruns/{quote(recurring_run_id, safe='')}")
        except InputError as error:
            if error.data.get("status") != NOT_FOUND:
                raise

    def _create(
        self, path: str, body: JSON, find: Callable[[], JSON | None], query: Mapping[str, str] | None = None
    ) -> JSON:
        return self.call("POST", path, query, body, arrived=find)

    def _pages(self, path: str, key: str, query: Mapping[str, str]) -> Iterator[JSON]:
        """Everything in a list, page by page."""
        token = ""
        for _ in range(MAX_PAGES):
            more = {"page_token": token} if token else {}
            page = self.call("GET", path, {**query, "page_size": str(PAGE), **more})
            items = page.get(key, [])
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise TerminalError(f"the server at '{self.endpoint}' sent {key} that is not a list of objects")
            yield from items
            last, token = token, page.get("next_page_token", "")
            if not token or token == last:
                return


def _filter(operation: str, key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})


def _moment(value: object) -> datetime | None:
    """A time as the API writes it; null for what is none."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(answer: JSON, key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise TerminalError(
            f"the server's answer has no '{key}'", hint="is this address the API of Kubeflow Pipelines, version 2?"
        )
    return value
