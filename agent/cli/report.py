"""`agent report`: writes a page on what a server has learned and retains."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import messages, print_json, shown
from agent.client.client import Client
from agent.errors import ConfigError
from memory_store.vocabulary import Event

if TYPE_CHECKING:
    from eval.reports.service import ServiceRecord

# The most entries of a page; the newest ones.
FACTS, EVENTS, PROBES = 10_000, 20_000, 20


@grouped
def report(
    out: Annotated[
        Path,
        typer.Option(
            dir_okay=False, help="Write the page to this file, and replace it if it exists."
        ),
    ] = Path("report.html"),
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Write a page on a server: facts, retention by age, rates, leak and drift, forgetting."""
    from eval.reports.plots import require_matplotlib
    from eval.reports.service import service_page

    require_matplotlib()
    with messages.status("asking the server"), connection.client() as client:
        record = gathered(client)
    provenance = {
        "server": connection.server,
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "contents": f"the newest {FACTS:,} facts and {EVENTS:,} events, if there are more",
    }
    try:
        out.write_text(service_page(record, provenance), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write {out} ({error.strerror}): name another file by --out"
        ) from error
    if json:
        print_json({"out": str(out), "facts": len(record.facts)})
    else:
        messages.print(shown(f"{out} shows {len(record.facts)} facts"))


def gathered(client: Client) -> ServiceRecord:
    """Fetches the content of the page."""
    from eval.reports.service import ServiceRecord

    status = client.status()
    newest = itertools.islice(client.facts(page_size=1000, newest_first=True), FACTS)
    remembered, ages = client.retention(max_facts=1000, max_probes=PROBES)
    return ServiceRecord(
        model=status.model,
        model_version=status.model_version,
        counts=status.facts,
        facts=list(newest)[::-1],
        remembered=remembered,
        ages=ages,
        events=_events(client, status.event_sequence),
        leak_limit=status.leak_limit,
        drift_limit=status.drift_limit,
    )


def _events(client: Client, last: int) -> list[Event]:
    """Fetches the stored events up to the last one, without waiting for new ones."""
    found: list[Event] = []
    if last:
        for event in client.watch(max(0, last - EVENTS)):
            if event.sequence:
                found.append(event)
            if event.sequence >= last:
                break
    return found
