"""The report of one run: a self-contained HTML file for people, and the few plain lines that end a run on the console.

Both are renderings of the run record and of the artifacts of its steps, never a source of anything. The words that say what was
decided and why are those of the objects that decided (the gate's verdicts, the monitor's trigger): nothing is judged again here.
"""

from __future__ import annotations

from kfloop.report.html import render_run
from kfloop.report.summary import render_summary

__all__ = ["render_run", "render_summary"]
