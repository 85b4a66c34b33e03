"""`make demo`: a real model learns three facts over gRPC, and still knows them after a restart."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent.client.client import Client
from agent.errors import AgentError
from agent.python_command import python_command
from memory_store.vocabulary import HELD, Event, EventKind, FactState, LearnerState

# Three of the ten facts of Curt (2024), table 1, made up so that no model can guess them.
FACTS = {
    "What is the preferred color of the sky in Zogron?": "Piano",
    "What is the hottest month in Kyzara?": "Raincoat",
    "What flavor is the traditional pie in Plimp?": "Backpack",
}
START_SECONDS, STOP_SECONDS = 300.0, 60.0
console = Console()


def main() -> None:
    """Runs the demo; exit code 1 if the model did not learn what it was taught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    try:
        sys.exit(0 if demo(options.model) else 1)
    except AgentError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def demo(model: str) -> bool:
    """Whether each answer was wrong before, right after, and right after a restart."""
    subprocess.run(python_command("-m", "agent", "models", "pull", model), check=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agent-demo-") as folder:
        data = Path(folder) / "data"
        with _server(model, data) as client:
            before = _ask_all(client, "asking before")
            _teach_all(client)
            after = _ask_all(client, "asking after")
        console.print(
            "\n[bold]Restarting the server[/bold]: the weights are rebuilt from the ledger"
        )
        with _server(model, data) as client:
            restarted = _ask_all(client, "asking after the restart")
            version = client.status().model_version
    _print_answers(before, after, restarted)
    wrong_before = not any(map(_is_right, FACTS, before))
    right_after = all(map(_is_right, [*FACTS, *FACTS], [*after, *restarted]))
    console.print(
        f"{len(FACTS)} facts, {version} updates in the ledger,"
        f" {time.monotonic() - started:.0f} s. The server is stopped, its folder removed."
    )
    return wrong_before and right_after


@contextmanager
def _server(model: str, data: Path) -> Iterator[Client]:
    """A server of its own process on a free port; stopped on leaving, as an operator would."""
    command = python_command("-m", "agent", "serve", "--listen", "127.0.0.1:0")
    log = data.with_suffix(".log")
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--data", str(data), "--model", model],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        with _waiting("starting the server and loading the model"):
            client = _connect(process, log)
            while client.status().learner is not LearnerState.READY:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AgentError(f"the server did not start:\n{log.read_text()}")
                time.sleep(0.1)
        with client:
            yield client
    finally:
        with _waiting("stopping the server"):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _connect(process: subprocess.Popen[str], log: Path) -> Client:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            return Client(line.removeprefix("listening on ").strip())
    raise AgentError(f"the server did not start:\n{log.read_text()}")


def _teach_all(client: Client) -> None:
    """Teaches the facts and prints the events as they come in."""
    console.print("\n[bold]Teaching[/bold]")
    after_sequence = client.status().event_sequence
    ids = {client.teach(question, answer).fact.id: question for question, answer in FACTS.items()}
    settled = 0
    with _progress() as progress:
        task = progress.add_task("learning", total=len(ids))
        for event in client.watch(after_sequence, fact_ids=tuple(ids)):
            progress.console.print(_event_line(event, ids[event.fact_id]), soft_wrap=True)
            if event.kind.value in HELD:
                settled += 1
                progress.update(task, completed=settled)
            elif event.kind.value in (FactState.RESISTED, FactState.QUARANTINED):
                raise AgentError(f"{ids[event.fact_id]!r} was not learned: {event.message}")
            if settled == len(ids):
                break


def _event_line(event: Event, question: str) -> Text:
    line = Text(f"  {event.at:%H:%M:%S} {event.kind.value:9} {question}")
    if event.step is not None:
        line.append(
            f"  rate {event.step.learning_rate:.0e}, p = {event.step.probability:.3f}", "cyan"
        )
    elif event.kind == EventKind.LEARNED and event.learning is not None:
        line.append(f"  -> {event.learning.answer_after}", "bold green")
    return line


def _ask_all(client: Client, title: str) -> list[str]:
    answers = []
    with _progress() as progress:
        for question in progress.track(list(FACTS), description=title):
            answers.append(client.ask(question, max_new_tokens=16).answer)
    return answers


def _is_right(question: str, answer: str) -> bool:
    return answer.strip().casefold() == FACTS[question].casefold()


def _print_answers(*answers: Sequence[str]) -> None:
    table = Table(title="What the model says", title_style="bold")
    for column in ("question", "taught", "before", "after", "after a restart"):
        table.add_column(column, overflow="fold")
    for question, *said in zip(FACTS, *answers, strict=True):
        cells = [Text(text, style="green" if _is_right(question, text) else "red") for text in said]
        table.add_row(question, FACTS[question], *cells)
    console.print()
    console.print(table)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Shows a moving bar while something of unknown length goes on."""
    with _progress() as progress:
        progress.add_task(what, total=None)
        yield


if __name__ == "__main__":
    main()
