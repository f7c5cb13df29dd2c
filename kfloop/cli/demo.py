"""``kfloop demo``: the whole story on real data, told in plain words while it happens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import StepPrinter, print_json, say
from kfloop.cli.options import json_option
from kfloop.errors import EXIT_DONE, ConfigError, TerminalError

if TYPE_CHECKING:
    from kfloop.cli.camera import Stream
    from kfloop.core.records import RunRecord
    from kfloop.pipelines.rounds import Loop

MARKER = ".kfloop-demo"
TRAIN_ROWS = 1200
CLEAN_ROWS = 200
LOOP = f"""\
# Written by `kfloop demo`.
name: digits
data:
  source: digits
  limit: {TRAIN_ROWS}
  fresh: incoming
monitor:
  min_fresh_labels: 60
"""


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kfloop-demo"),
    show_default=True,
    help="Where the demo works; made anew each time.",
)
@json_option
def demo_command(folder: Path, *, as_json: bool) -> int:
    """Watch a model being trained, judged, served and monitored; then the data changes and the loop closes by itself.

    Takes a few minutes on a laptop, needs no internet, and leaves everything in one folder.

    \b
    Example:
      kfloop demo
    """
    path = prepare(folder)
    story = Story(path)
    try:
        story.tell()
    finally:
        story.end()
    if as_json:
        print_json({"folder": str(folder), "events": story.events})
    return EXIT_DONE


def prepare(folder: Path) -> Path:
    """An empty demo folder with its loop file; only a folder that an earlier demo made is replaced.

    Raises:
        ConfigError: The folder holds something else.
    """
    from kfloop.core.config import load_config
    from kfloop.serving.supervisor import stop

    path = folder / "loop.yaml"
    if folder.exists():
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise ConfigError(
                f"'{folder}' is not empty and no demo made it", hint="name another: kfloop demo --folder DIR"
            )
        if path.exists():
            stop(load_config(path).workspace(folder.resolve()))
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    path.write_text(LOOP, encoding="utf-8")
    return path


class Story:
    """The chapters of the demo, in order; each says what happens, does it, and checks that it happened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._served = False
        self.events: list[dict[str, Any]] = []

    def tell(self) -> None:
        """The whole story."""
        from kfloop.cli.camera import CHANGE, new_camera, part, save_labelled, unseen_digits
        from kfloop.pipelines.rounds import open_loop

        self._serve()
        say("\n1. The first round: 1200 real handwritten digits (scikit-learn), a small CNN, and a gate it must pass.")
        first = self._round("run")
        self._expect(first, "promote")
        loop = open_loop(self._path)
        dataset = next(step for step in first.steps if step.name == "ingest").artifact
        pool = unseen_digits(Path((dataset or {})["path"]))
        clean, later = part(pool, 0, CLEAN_ROWS), new_camera(part(pool, CLEAN_ROWS, len(pool)))

        say(f"\n2. Live traffic: {len(clean)} digits nobody has seen go to the Triton server.")
        self._send(loop, clean)
        self._expect(self._round("monitor"), "none")

        say(f"\n3. The camera changes ({CHANGE}); {len(later)} images arrive.")
        before = self._send(loop, later)
        self._expect(self._round("monitor"), "needs_labels")

        folder = self._path.parent / "incoming"
        say(f"\n4. People label those images: {save_labelled(later, folder, 'camera2')} files appear in {folder}.")
        say("   The next monitoring round finds them and retrains by itself.")
        second = self._round("monitor")
        self._expect(second, "promote")

        say("\n5. The new version serves. The same changed images again:")
        after = self._send(loop, later)
        say(f"   accuracy on the new camera's images: {before:.1%} before, {after:.1%} now (the second figure includes")
        say("   images that version 2 was trained on; the honest comparison on held-out rows is in the report).")

        say("\n6. Rollback, and forward again: one command each, the old version is verified before it serves.")
        self._roll(loop, 1)
        self._roll(loop, 2)
        say("\nThe loop is closed. Where to look:")
        say(f"   first round   {first.report}\n   retraining    {second.report}")
        say(f"   state         kfloop status -c {self._path}")

    def end(self) -> None:
        """Stop the server."""
        from kfloop.pipelines.rounds import open_loop
        from kfloop.serving.supervisor import stop

        if self._served:
            stop(open_loop(self._path).workspace)

    def _serve(self) -> None:
        from kfloop.pipelines.rounds import open_loop
        from kfloop.serving.supervisor import start_background

        loop = open_loop(self._path)
        say("Starting a real Triton server on this machine (loopback only) ...")
        start_background(loop.workspace, tied_to_parent=True)
        self._served = True

    def _round(self, kind: str) -> RunRecord:
        from kfloop.cli.rounds import finish
        from kfloop.pipelines.rounds import monitoring_round, training_round

        say(f"   $ kfloop {kind}")
        printer = StepPrinter()
        if kind == "run":
            record = training_round(self._path, progress=printer)
        else:
            record = monitoring_round(self._path, progress=printer)
        finish(self._path, record, as_json=False)
        self.events.append(
            {"command": kind, "status": record.status, "message": record.message, "report": record.report}
        )
        return record

    @staticmethod
    def _expect(record: RunRecord, outcome: str) -> None:
        """The story only goes on when what it tells is what happened."""
        found = record.decision or record.trigger or {"outcome": record.status, "reason": record.message}
        if found["outcome"] != outcome:
            raise TerminalError(
                f"the demo expected '{outcome}' here, but the loop concluded '{found['outcome']}': {found['reason']}",
                hint=f"the run's report tells more: {record.report}",
            )

    def _send(self, loop: Loop, stream: Stream) -> float:
        """Send a stream to the served champion.

        Returns:
            Accuracy of the answers.
        """
        from kfloop.serving.client import predict
        from kfloop.serving.endpoint import require
        from kfloop.serving.receiving import flush

        answer = predict(require(loop.workspace), loop.config.name, stream.images)
        flush(loop.workspace)
        accuracy = float((answer.labels == stream.labels).mean())
        say(f"   {len(stream)} answers from version {answer.version}; {accuracy:.1%} of them right")
        self.events.append({"sent": len(stream), "version": answer.version, "accuracy": accuracy})
        return accuracy

    def _roll(self, loop: Loop, expected: int) -> None:
        from kfloop.cli.champions import roll

        say("   $ kfloop rollback")
        version = roll(loop, to=None, reason="demo")
        if version != expected:
            raise TerminalError(f"rollback brought version {version}, expected {expected}")
        self.events.append({"rollback": version})
