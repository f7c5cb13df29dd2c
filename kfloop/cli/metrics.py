"""``kfloop metrics``: the loop for Prometheus and Grafana."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import say
from kfloop.cli.options import config_option
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

ASSETS = Path(__file__).parent / "operations"
DASHBOARD, ALERTS = "dashboard.json", "alerts.yaml"
HIGHEST_PORT = 65_535


@click.command("metrics")
@config_option
@click.option(
    "--listen", metavar="ADDRESS", help="Serve /metrics there, such as 127.0.0.1:9464, until Ctrl-C or SIGTERM."
)
@click.option("--dashboard", is_flag=True, help="Print a Grafana dashboard that uses these metrics and Triton's.")
@click.option("--alerts", is_flag=True, help="Print alert rules for Prometheus.")
def metrics_command(path: Path, *, listen: str | None, dashboard: bool, alerts: bool) -> int:
    """Print how the loop stands in Prometheus' text format.

    The loop's state is read anew at each scrape and never changed. Triton's own metrics stay where they are (kfloop serve prints the address).

    \b
    Example:
      kfloop metrics
      kfloop metrics --listen 127.0.0.1:9464
      kfloop metrics --dashboard > kfloop.json
      kfloop metrics --alerts > kfloop-alerts.yaml
    """
    if dashboard or alerts:
        click.echo((ASSETS / (DASHBOARD if dashboard else ALERTS)).read_text(encoding="utf-8"), nl=False)
        return EXIT_DONE
    from kfloop.cli.exposition import registry
    from kfloop.cli.standing import gather
    from kfloop.core.config import load_config

    known = registry(lambda: gather(path), load_config(path).name)
    if listen is None:
        from prometheus_client import generate_latest

        click.echo(generate_latest(known).decode(), nl=False)
        return EXIT_DONE
    _serve(known, *_address(listen))
    return EXIT_DONE


def _serve(known: CollectorRegistry, host: str, port: int) -> None:
    """Answer scrapes until SIGTERM or Ctrl-C."""
    from prometheus_client import start_http_server

    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    try:
        server, thread = start_http_server(port, host, known)
    except OSError as error:
        raise ConfigError(
            f"'{host}:{port}' cannot be listened on: {error}", hint="name another with --listen"
        ) from error
    try:
        say(f"metrics at http://{host}:{server.server_port}/metrics; end with Ctrl-C or SIGTERM")
        stop.wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > HIGHEST_PORT:
        raise ConfigError(f"--listen is '{text}'", hint="expected ADDRESS:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)
