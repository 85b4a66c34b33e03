"""Tables of the suite `continual`."""

from __future__ import annotations

from collections.abc import Sequence

from eval.reports.tables import NONE, Table, shown_ages, shown_change, shown_count, shown_number
from eval.suites.continual.summary import Spread, Summary


def comparison(summaries: Sequence[Summary]) -> Table:
    """One column a teacher, after all facts."""
    header = ("after all facts", *(summary.name for summary in summaries))
    columns = [_column(summary) for summary in summaries]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    return Table("Teachers", header, rows)


def course(summary: Summary) -> Table:
    """One teacher, as more and more facts were taught."""
    header = ("facts", "recall", "paraphrase", "transfer", "leak", "controls changed", "WikiText")
    rows = tuple(
        (
            str(point.taught) if point.taught else "none",
            shown_count(point.recall),
            shown_count(point.paraphrase),
            shown_count(point.transfer),
            shown_count(point.leaks.leaked),
            shown_count(point.leaks.changed),
            shown_change(point.change.wikitext if point.change else None),
        )
        for point in summary.checkpoints
    )
    return Table(f"{summary.name}: on the way", header, rows)


def retention(summary: Summary) -> Table:
    """Recall in the end by the number of facts taught since."""
    rows = [("right after its own turn", shown_count(summary.own_turn))]
    rows += [
        (f"{shown_ages(age.youngest, age.oldest)} taught since", shown_count(age.recall))
        for age in summary.ages
    ]
    return Table(f"{summary.name}: retention by age", ("fact", "recall"), tuple(rows))


def missed(summary: Summary, questions: Sequence[str], answers: Sequence[str]) -> Table:
    """Facts that are answered wrong in the end."""
    last = summary.history.measurements[-1].retention
    rows = tuple(
        (question, expected, said.text)
        for question, expected, said in zip(questions, answers, last, strict=True)
        if not said.correct
    )
    return Table(f"{summary.name}: missed in the end", ("question", "taught", "said"), rows)


def _column(summary: Summary) -> dict[str, str]:
    last, change = summary.last, summary.last.change
    return {
        "recall": shown_count(last.recall),
        "paraphrase": shown_count(last.paraphrase),
        "transfer": shown_count(last.transfer),
        "leak": shown_count(last.leaks.leaked),
        "leak, nothing else": shown_count(last.leaks.leaked_exactly),
        "controls changed": shown_count(last.leaks.changed),
        "WikiText perplexity": shown_change(change.wikitext if change else None),
        "mixed-text perplexity": shown_change(change.mixed if change else None),
        "LAMBADA perplexity": shown_change(change.lambada if change else None),
        "LAMBADA accuracy": _points(change.lambada_accuracy) if change else NONE,
        "right after its own turn": shown_count(summary.own_turn),
        "lost since": shown_count(summary.lost),
        "ACC": shown_number(summary.accuracy.rate),
        "BWT": shown_number(summary.backward_transfer),
        "steps a fact: mean (median)": _mean_median(summary.steps),
        "seconds a fact: mean (median)": _mean_median(summary.seconds),
        "rates scored a fact: mean (median)": _mean_median(summary.candidates),
        "rates: median (range)": f"{shown_number(summary.rates.median)}"
        f" ({shown_number(summary.rates.min)} to {shown_number(summary.rates.max)})",
        "verdicts": ", ".join(f"{n} {verdict}" for verdict, n in summary.verdicts.items()),
        "taught again after a review": str(summary.retaught),
        "sees all facts at once": "yes" if summary.history.sees_all else "no",
    }


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _mean_median(spread: Spread) -> str:
    return f"{shown_number(spread.mean)} ({shown_number(spread.median)})"
