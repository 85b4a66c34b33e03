"""One self-contained page with its pictures, for dark and light screens, without scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from eval.reports.plots import Picture, ThemedPicture
from eval.reports.tables import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; }
th { background: var(--soft); }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
/* A picture that is drawn once needs its white background. */
img.once { background: white; border-radius: 6px; }
figcaption { font-size: 0.9rem; }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with paragraphs below it."""

    title: str
    paragraphs: tuple[str, ...] = ()


Part = Section | Table | Picture | ThemedPicture


def page(
    title: str,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    provenance: Mapping[str, Any],
) -> str:
    """The page of the suite `continual` as text.

    Args:
        title: its heading.
        tables: in order; the first stands above the pictures.
        pictures: in order.
        provenance: shown at the end.
    """
    lead = (
        "Counts stand with their denominators and 95% Wilson intervals. "
        "Answers are generated greedily."
    )
    parts: list[Part] = [*tables[:1], *pictures, *tables[1:], provenance_table(provenance)]
    return document(title, (lead,), parts)


def document(title: str, lead: Sequence[str], parts: Sequence[Part]) -> str:
    """A page as text.

    Args:
        title: its heading.
        lead: paragraphs below it.
        parts: in order.
    """
    level = 3 if any(isinstance(part, Section) for part in parts) else 2
    body = [f"<h1>{escape(title)}</h1>", *map(_paragraph, lead)]
    body += [_part(part, level) for part in parts]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def provenance_table(provenance: Mapping[str, Any]) -> Table:
    """Where results come from."""
    return Table("Provenance", ("", ""), tuple((k, str(v)) for k, v in provenance.items()))


def _part(part: Part, level: int) -> str:
    match part:
        case Section():
            heading = f"<h2>{escape(part.title)}</h2>"
            return "\n".join([heading, *map(_paragraph, part.paragraphs)])
        case Table():
            return _table(part, level)
        case Picture():
            return _figure(part.caption, _image(part.caption, part.png, "png", ' class="once"'))
        case ThemedPicture():
            dark = _uri(part.dark, "svg+xml")
            return _figure(
                part.caption,
                f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
                f"{_image(part.caption, part.svg, 'svg+xml')}</picture>",
            )


def _figure(caption: str, image: str) -> str:
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _image(caption: str, content: bytes, kind: str, attributes: str = "") -> str:
    return f'<img{attributes} alt="{escape(caption)}" src="{_uri(content, kind)}">'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(table: Table, level: int) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f'<h{level}>{escape(table.title)}</h{level}>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
