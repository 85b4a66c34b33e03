"""Benchmark `ask`: answer latency while facts are learned and when idle, and answers in batches."""

from __future__ import annotations

import itertools
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
from eval.bench.figure import Figure, compare, this_machine
from eval.bench.server_process import benchmark_server
from memory_store.vocabulary import EventKind, NewFact

TOKENS = 8
TOGETHER = 8
# Between two questions, as people ask; learning goes on meanwhile.
PAUSE_SECONDS = 0.05
# More facts than are learned during the benchmark; `search` takes up to twenty steps for each.
FACTS = 500
OPTIONS = ("--policy", "search", "--learning-rate", "0.1", "--max-steps", "20", "--guards", "light")
PATIENCE_SECONDS = 300.0


def measure_ask(model: str = "tiny", questions: int = 200, threads: int = 1) -> list[Figure]:
    """Starts a server and asks it questions, first idle, then while it learns.

    Args:
        model: a name that `agent serve` knows.
        questions: how many for each figure.
        threads: of the learner.

    Raises:
        AgentError: the server does not start, or does not learn during the questions.
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
    latencies = [
        compare(
            f"Ask p{percent} while learning",
            *(busy.quantile(percent / 100), idle.quantile(percent / 100), "ms", floor, device),
        )
        for percent, floor in ((99, 1 / 3), (50, None))
    ]
    batched = compare(
        f"Ask, {TOGETHER} in flight, beside one", together, alone, "answers/s", 1.0, device
    )
    return [*latencies, batched]


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
    """Answers a second, with this number of questions in flight."""
    with ThreadPoolExecutor(number) as pool:
        started = time.perf_counter()
        list(pool.map(lambda n: client.ask(_question(n), TOKENS), range(questions)))
        return questions / (time.perf_counter() - started)


@contextmanager
def _learning(client: Client) -> Iterator[None]:
    """Makes sure that the server learns from the beginning to the end of the block."""
    after = client.status().event_sequence
    began = threading.Event()
    steps = itertools.count()

    def watch() -> None:
        with suppress(AgentError):  # the server ends while this waits
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
