"""How long answers take while facts are being learned, beside an idle server; and in batches."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.client.client import Client
from agent.errors import AgentError
from eval.bench.closed_loop import Load
from eval.bench.figure import Figure, this_machine
from eval.bench.server_process import benchmark_server
from memory_store.vocabulary import EventKind, NewFact

TOKENS = 8
TOGETHER = 8
# Between two questions: as people ask, learning goes on.
PAUSE_SECONDS = 0.05
# More facts than are learned meanwhile; `search` takes up to twenty steps for each.
FACTS = 500
OPTIONS = ("--policy", "search", "--learning-rate", "0.1", "--max-steps", "20", "--guards", "light")
PATIENCE_SECONDS = 300.0


def asking(model: str = "tiny", questions: int = 200, threads: int = 1) -> list[Figure]:
    """Starts a server and asks it, idle and while it learns by the default policy.

    Args:
        model: a name that `agent serve` knows.
        questions: how many for each figure.
        threads: of the learner.

    Raises:
        AgentError: the server does not start, or learns nothing meanwhile.
    """
    options = (*OPTIONS, "--model", model, "--threads", str(threads))
    with (
        tempfile.TemporaryDirectory() as folder,
        benchmark_server(Path(folder) / "data", options=options) as server,
        Client(server.address) as client,
    ):
        one_by_one(client, 5)  # warms up
        idle = one_by_one(client, questions)
        alone, together = (_in_flight(client, questions, number) for number in (1, TOGETHER))
        with _learning(client):
            busy = one_by_one(client, questions)
    device = f"{this_machine()}, {model}, {threads} threads"
    return [
        Figure(
            name=f"Ask p{percent} while learning",
            ours=busy.quantile(percent / 100),
            baseline=idle.quantile(percent / 100),
            unit="ms",
            ratio=idle.quantile(percent / 100) / busy.quantile(percent / 100),
            floor=floor,
            device=device,
        )
        for percent, floor in ((99, 1 / 3), (50, None))
    ] + [
        Figure(
            name=f"Ask, {TOGETHER} in flight, beside one",
            ours=together,
            baseline=alone,
            unit="answers/s",
            ratio=together / alone,
            floor=1.0,
            device=device,
        )
    ]


def one_by_one(client: Client, questions: int) -> Load:
    """Asks one question after the other, with a pause between them."""
    latencies = []
    for number in range(questions):
        started = time.perf_counter()
        client.ask(_question(number), TOKENS)
        latencies.append(time.perf_counter() - started)
        time.sleep(PAUSE_SECONDS)
    return Load(rate=len(latencies) / sum(latencies), latencies=sorted(latencies))


def _in_flight(client: Client, questions: int, number: int) -> float:
    """Answers a second, with so many questions in flight."""
    with ThreadPoolExecutor(number) as pool:
        started = time.perf_counter()
        list(pool.map(lambda n: client.ask(_question(n), TOKENS), range(questions)))
        return questions / (time.perf_counter() - started)


@contextmanager
def _learning(client: Client) -> Iterator[None]:
    """Inside, the server learns from the first step on until the end."""
    after = client.status().event_sequence
    began = threading.Event()
    steps = itertools.count()

    def watch() -> None:
        with suppress(AgentError):  # how it ends
            for event in client.watch(after):
                if event.kind is EventKind.STEP:
                    next(steps)
                    began.set()

    threading.Thread(target=watch, daemon=True).start()
    for number in range(FACTS):
        client.teach_fact(NewFact(question=f"Which gem is mined in {number}?", answer="Curtain"))
    if not began.wait(PATIENCE_SECONDS):
        raise AgentError(f"no step was taken in {PATIENCE_SECONDS:.0f} s")
    before = next(steps)
    yield
    if client.status().queue_depth == 0 or next(steps) - before < 2:
        raise AgentError("the server did not learn all the time: the comparison means nothing")


def _question(number: int) -> str:
    return f"What is the hottest month in Kyzara{number % 7}?"


def main() -> None:
    """Prints the figures as JSON; exit code 1 if a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    figures = asking(**vars(parser.parse_args()))
    print(json.dumps({"benchmarks": [figure.json() for figure in figures]}, indent=2))
    sys.exit(not all(figure.reached for figure in figures))


if __name__ == "__main__":
    main()
