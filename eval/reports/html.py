"""One self-contained page: pictures within, readable in dark and in light, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from eval.reports.plots import Picture
from eval.reports.tables import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; }
th { background: var(--soft); }
/* The pictures keep their white ground: they are drawn for it. */
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: white; border-radius: 6px; }
figcaption { font-size: 0.9rem; }
"""


def page(
    title: str,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    provenance: Mapping[str, Any],
) -> str:
    """The page as text.

    Args:
        title: its heading.
        tables: in order; the first stands above the pictures.
        pictures: in order.
        provenance: shown at the end.
    """
    facts = Table("Provenance", ("", ""), tuple((k, str(v)) for k, v in provenance.items()))
    parts = [
        *(_table(table) for table in tables[:1]),
        *(_figure(picture) for picture in pictures),
        *(_table(table) for table in (*tables[1:], facts)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n"
        "<p>Counts stand with their denominators and 95% Wilson intervals. "
        "Answers are generated greedily.</p>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _figure(picture: Picture) -> str:
    encoded = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img alt="{escape(picture.caption)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
