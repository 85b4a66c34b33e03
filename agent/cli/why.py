"""`agent why`: shows which updates changed an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, print_json, shown
from agent.client.types import Influence


@grouped
def why(
    question: Annotated[str, typer.Argument(help="The question of a fact.")],
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many updates.")] = 10,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Show which updates changed the answer's probability most, from recorded probes."""
    with connection.client() as client:
        result = client.explain(question, limit)
    if json:
        print_json(result)
        return
    console.print(influence_table(result.influences))


# What an update did, by its kind in the ledger.
UPDATES = {
    "teach": "taught",
    "relearn": "learned again",
    "forget": "forgotten",
    "rollback": "rolled back",
    "drift": "drifted",
}


def influence_table(influences: Iterable[Influence], title: str | None = None) -> Table:
    """Makes a table of the effects of updates on the probability of an answer."""
    table = Table("version", "update", "of", "p before", "p after", title=title)
    for influence in influences:
        table.add_row(
            str(influence.model_version),
            UPDATES.get(influence.kind, shown(influence.kind)),
            shown(influence.cause_question or influence.cause_fact_id),
            f"{influence.probability_before:.4f}",
            f"{influence.probability_after:.4f}",
        )
    return table
