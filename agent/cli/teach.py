"""`agent teach`: one fact, or a file of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.cli.connection import Connection, StartTimeout, wait_accepting
from agent.cli.fact_files import STANDARD_INPUT, FactLine, read_facts
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import (
    console,
    fact_json,
    messages,
    print_json,
    progress_bar,
    shown,
    state_text,
)
from agent.cli.policies import POLICY_HELP, complete_policy, given_policy
from agent.client.client import Client
from agent.client.server_start import START_SECONDS
from agent.client.types import Rejected, Status
from agent.errors import ServerUnreachableError
from memory_store.vocabulary import Accepted, Fact, FactState, LearnerState, NewFact

# States in which the model does not hold the taught fact.
FAILED = (FactState.RESISTED, FactState.QUARANTINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactOptions:
    """The options of one fact."""

    correlated: Annotated[
        list[str] | None,
        typer.Option(
            help="Probe transfer with this question, which has the same answer. Repeatable."
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_policy,
            help=f"Learn the fact by this policy. {POLICY_HELP}. Without it, --learning-rate and"
            " --max-steps the server's policy is used.",
        ),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Learn at this rate, 1e-8 to 1e-1.")
    ] = None
    max_steps: Annotated[
        int | None, typer.Option(help="Take at most this many steps, 1 to 1000.")
    ] = None
    request_id: Annotated[
        str | None,
        typer.Option(
            help="Identify the request by this id (a UUID), so that sending it again teaches once."
        ),
    ] = None
    fact_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Give the fact this id: 4 to 63 of a-z, 0-9 and '-', a letter first."
        ),
    ] = None

    def new_fact(self, question: str, answer: str) -> NewFact:
        """The fact to teach.

        Raises:
            ConfigError: the policy is unknown or incomplete.
            InvalidFactError: rate or steps are out of range.
        """
        return NewFact(
            question=question,
            answer=answer,
            correlated_questions=tuple(self.correlated or ()),
            policy=given_policy(self.policy, self.learning_rate, self.max_steps),
            request_id=self.request_id,
            fact_id=self.fact_id,
        )


@grouped
def teach(
    question: Annotated[
        str | None,
        typer.Argument(
            help="The question to teach; - reads facts from standard input, as --file does."
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Argument(help="The answer to the question, one line.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Teach the facts of this file: .jsonl (an object a line) or .csv (with a header)."
            " Each has question and answer, and may have correlated_questions, policy,"
            " learning_rate, max_steps, id and request_id."
        ),
    ] = None,
    *,
    options: FactOptions,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the facts are learned.")] = False,
    start_timeout: StartTimeout = START_SECONDS,
    connection: Connection,
    json: Json = False,
) -> None:
    """Teach a fact, or a file of them. Returns once they are durable; with --wait, learned."""
    if question == str(STANDARD_INPUT) and answer is None and file is None:
        question, file = None, STANDARD_INPUT
    if file is not None and (question, answer, options) != (None, None, FactOptions()):
        raise typer.BadParameter("with --file or -, the file has all options of each fact")
    if file is None and (question is None or answer is None):
        raise typer.BadParameter("give a question and an answer, or else --file, or -")
    # Read in full: gRPC would iterate in its own thread, where errors lose their message.
    lines = [] if file is None else list(read_facts(file))
    with connection.client() as client:
        wait_accepting(client, start_timeout)
        if file is not None:
            accepted, errors = _teach_lines(client, lines)
        else:
            new = options.new_fact(question or "", answer or "")
            accepted, errors = [_teach_one(client, new)], []
        _report_replaced(accepted)
        taught = [one.fact for one in accepted]
        if wait:
            taught = _wait(client, taught)
    if json:
        results = [
            {**fact_json(fact), "replaces": one.replaces}
            for fact, one in zip(taught, accepted, strict=True)
        ]
        print_json({"facts": results, "errors": errors})
    else:
        _print(taught, errors)
    if errors or any(fact.state in FAILED for fact in taught):
        raise typer.Exit(1)


def _teach_one(client: Client, new: NewFact) -> Accepted:
    """Teaches a fact; reports if it was taught before, and which options have no effect then."""
    accepted = client.teach_fact(new)
    fact = accepted.fact
    if not accepted.created:
        ignored = ["--id"] if new.fact_id not in (None, fact.id) else []
        if not set(new.correlated_questions) <= set(fact.correlated_questions):
            ignored.append("--correlated")
        text = f"taught already, as {fact.id}"
        if ignored:
            text += f": {' and '.join(ignored)} not taken over"
        messages.print(shown(text), style="dim", highlight=False)
    return accepted


def _report_replaced(accepted: Iterable[Accepted]) -> None:
    """Reports facts with another answer to the same question."""
    for one in accepted:
        if one.replaces:
            text = f"{one.fact.id} takes the place of {one.replaces}"
            text += ", another answer to the same question"
            messages.print(shown(text), style="dim", highlight=False)


def _teach_lines(
    client: Client, lines: Sequence[FactLine]
) -> tuple[list[Accepted], list[dict[str, Any]]]:
    """Teaches the valid lines; returns the accepted facts, and the errors of the others."""
    errors: list[dict[str, Any]] = []
    sent: list[int] = []  # line numbers, in the order of the stream

    def good(lines: Iterable[FactLine]) -> Iterator[NewFact]:
        for line in lines:
            if line.fact is None:
                errors.append({"line": line.number, "message": line.error})
            else:
                sent.append(line.number)
                yield line.fact

    taught = []
    with progress_bar() as progress:
        task = progress.add_task("teaching", total=sum(line.fact is not None for line in lines))
        for result in client.teach_many(good(lines)):
            progress.advance(task)
            if isinstance(result, Rejected):
                errors.append({"line": sent[result.index], "message": result.message})
            else:
                taught.append(result)
    return taught, sorted(errors, key=lambda error: error["line"])


def _wait(client: Client, facts: list[Fact]) -> list[Fact]:
    """Waits until all facts are settled, and returns them in the given order."""
    settled = {}
    _explain_wait(client.status())
    try:
        with progress_bar() as progress:
            task = progress.add_task("learning", total=len({fact.id for fact in facts}))
            for fact in client.settle(fact.id for fact in facts):
                settled[fact.id] = fact
                progress.advance(task)
    except ServerUnreachableError:
        messages.print(
            "the server has ended: the facts are accepted, and are learned once it runs again",
            style="yellow",
            soft_wrap=True,
        )
        raise
    except KeyboardInterrupt:
        messages.print(
            "the facts are accepted, and are learned without you; 'agent facts list' shows them"
            " far that is",
            soft_wrap=True,
        )
        raise
    return [settled[fact.id] for fact in facts]


def _explain_wait(status: Status) -> None:
    """Reports why facts may not be learned soon."""
    if status.learning_paused:
        messages.print("learning is paused: the facts wait until 'agent resume'", style="yellow")
    elif status.learner is not LearnerState.READY:
        why = f" ({status.learner_message})" if status.learner_message else ""
        text = f"the learner is {status.learner}{why}: the facts wait until it is ready"
        messages.print(shown(text), style="yellow", soft_wrap=True)


def _print(facts: list[Fact], errors: list[dict[str, Any]]) -> None:
    if facts:
        console.print(facts_table(facts))
    for fact in facts:
        if fact.state in FAILED and fact.reason:
            text = f"{fact.id} is {fact.state.value}: {fact.reason}"
            messages.print(shown(text), style="red", soft_wrap=True)
    for error in errors:
        messages.print(f"line {error['line']}: ", shown(error["message"]), style="red", sep="")


def facts_table(facts: Iterable[Fact]) -> Table:
    """Makes a table with a row for each fact."""
    table = Table()
    # Ids are copied, so they do not wrap; questions and answers do.
    table.add_column("id", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("question", overflow="fold", ratio=2)
    table.add_column("answer", overflow="fold", ratio=1)
    table.add_column("steps", justify="right")
    table.add_column("p before, after", justify="right")
    for fact in facts:
        steps = probabilities = ""
        if fact.learning:
            steps = str(len(fact.learning.learning_rates))
            after = f"{fact.learning.probability_after:.3f}"
            if fact.state is FactState.FORGOTTEN:
                after = "undone"  # the weights no longer hold it
            probabilities = f"{fact.learning.probability_before:.3f} {after}"
        table.add_row(
            shown(fact.id),
            state_text(fact.state),
            shown(fact.question),
            shown(fact.answer),
            steps,
            probabilities,
        )
    return table
