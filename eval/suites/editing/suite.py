"""Suites `zsre` and `counterfact` from request to results: all teachers, one after the other.

An interrupted run keeps nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eval.base_models import BaseModels
from eval.errors import RequestError
from eval.provenance import provenance
from eval.suites.editing.counterfact import counterfact_table, run_counterfact
from eval.suites.editing.edit_files import Edits, read_counterfact, read_zsre
from eval.suites.editing.zsre import run_zsre, zsre_table
from eval.teachers.registry import require_known, teacher_with_policy
from memory_store.vocabulary import Policy

RESULTS, TABLE = "results.json", "results.md"


# Reads its rows, teaches them to one teacher, draws the reports.
SUITES: dict[str, tuple[Callable[..., Edits[Any]], Callable[..., Any], Callable[..., str]]] = {
    "zsre": (read_zsre, run_zsre, zsre_table),
    "counterfact": (read_counterfact, run_counterfact, counterfact_table),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingRequest:
    """What is taught.

    Attributes:
        suite: one of `SUITES`.
        edits: the file.
        facts: how many of its rows, from the first.
        teachers: names of `eval.teachers.registry.TEACHERS`.
        policy: of the teachers that follow one.
    """

    suite: str
    edits: Path | None
    facts: int
    teachers: tuple[str, ...]
    policy: Policy

    def read(self, out: Path | None) -> Edits[Any]:
        """The rows, before a model is loaded.

        Args:
            out: folder of the results, or None.

        Raises:
            RequestError: the file is missing or malformed, a teacher is unknown, or the folder
                has results.
        """
        require_known(self.teachers)
        if self.edits is None:
            raise RequestError("edits", f"the suite {self.suite} needs a file of edits")
        if out is not None and (out / RESULTS).exists():
            raise RequestError("out", f"{out} has results already: name another folder")
        return SUITES[self.suite][0](self.edits, self.facts)


def run_suite(
    request: EditingRequest,
    edits: Edits[Any],
    models: BaseModels,
    progress: Callable[[str, int, int], None],
    out: Path | None,
) -> tuple[dict[str, Any], str]:
    """Teaches the edits one by one in each way, and measures before and after.

    Args:
        request: what is taught.
        edits: as `EditingRequest.read` returns them.
        models: a base model for each teacher.
        progress: called with what is done, how much of it, and how much there is.
        out: folder of the results, made if missing; None keeps nothing.

    Returns:
        The results as a JSON object, and as a table in Markdown.
    """
    _, run, table_of_reports = SUITES[request.suite]
    reports = [
        run(
            teacher_with_policy(name, models.take(), request.policy),
            edits.rows,
            partial(progress, f"{name}: teaching"),
        )
        for name in request.teachers
    ]
    results = {
        "suite": request.suite,
        "facts": len(edits.rows),
        "repeated": edits.repeated,
        "without_question": edits.without_question,
        "policy": asdict(request.policy),
        **provenance(models.first),
        "teachers": [report.as_json() for report in reports],
    }
    table = table_of_reports(reports)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
        (out / TABLE).write_text(table + "\n", encoding="utf-8")
    return results, table
