"""Answers stay below what any client takes, however large the facts are. # M10"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.report import gathered
from agent.client.client import Client
from agent.monitor.feed import gather
from agent.monitor.observations import FactsSeen
from agent.wire.message_size import PAGE_BYTES, Room
from continual.v1 import memory_pb2 as pb
from continual.v1 import model_pb2
from memory_store import ledger
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact, Step
from tests.cli.conftest import Agent, agent, in_thread  # noqa: F401 - a fixture
from tests.server.serving import serving
from tests.store.builders import learning, new_probe, new_update, record_learned, teach_claimed

COUNT = 200
# What gRPC clients take by default.
DEFAULT_LIMIT = 4 * 1024 * 1024


def large_facts(store: MemoryStore) -> None:
    """As in use: 32 correlated questions of 800 characters each."""
    store.teach_many(
        [
            NewFact(
                question=f"Question {number}?",
                answer="Piano",
                correlated_questions=tuple(f"{n} ".ljust(800, "x") for n in range(32)),
                fact_id=f"fact-{number}",
            )
            for number in range(COUNT)
        ]
    )


IDS = [f"fact-{number}" for number in range(COUNT)]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_ends_by_its_bytes_and_the_next_goes_on(
    newest_first: bool, tmp_path: Path
) -> None:
    """M10: through a client that takes no more than the usual."""
    async with serving(tmp_path, large_facts) as parts:
        request = pb.ListFactsRequest(page_size=1000, newest_first=newest_first)
        seen, pages = list[str](), 0
        while pages == 0 or request.page_token:
            page = await parts.memory.ListFacts(request)
            assert page.ByteSize() <= PAGE_BYTES < DEFAULT_LIMIT
            seen += [fact.id for fact in page.facts]
            request.page_token = page.next_page_token
            pages += 1
    assert seen == (IDS[::-1] if newest_first else IDS)
    assert pages > 1


def test_what_lists_facts_shows_them_all(agent: Agent, tmp_path: Path) -> None:  # noqa: F811
    """M10: `facts list`, `monitor`, `report` ended with "message larger than max"."""
    with in_thread(tmp_path) as server:
        server.write(large_facts)
        listed = agent("facts", "list", "--server", server.address, "--json").json["facts"]
        assert [fact["id"] for fact in listed] == IDS
        with Client(server.address) as client:
            assert [fact.id for fact in gathered(client).facts] == IDS
            [shown] = [seen for seen in gather(client) if isinstance(seen, FactsSeen)]
            assert {fact.id for fact in shown.facts} == set(IDS)


def a_long_life(store: MemoryStore) -> None:
    """A fact of the longest texts that is probed and taught again for years."""
    long = "\U0001f600" * 4000
    fact = teach_claimed(store, long, "Piano")
    steps = tuple(
        Step(learning_rate=1e-4, loss=2.5, probability=0.9, rehearsed_fact_ids=("x" * 64,) * 24)
        for _ in range(100)
    )
    record_learned(store, new_update(fact.id, 0, steps=steps), learning())
    for version in range(1, 20):
        row = new_update(fact.id, version, steps=steps)
        with store.transaction():
            ledger.append_at_head(store.connection, row, store.now())
    probes = [
        new_probe(fact.id, question=long, answer="x" * 1000, log_probability=-0.1 * number)
        for number in range(400)
    ]
    for version in range(1, 21):
        store.record_probes(probes[:20], version, fact.id)


async def test_a_fact_with_a_long_history_shows_the_newest_of_it(tmp_path: Path) -> None:
    """M10: `facts show`."""
    async with serving(tmp_path, a_long_life) as parts:
        [fact] = (await parts.memory.ListFacts(pb.ListFactsRequest())).facts
        shown = await parts.memory.GetFact(pb.GetFactRequest(fact_id=fact.id))
        assert shown.ByteSize() < DEFAULT_LIMIT
        versions = [update.model_version for update in shown.updates]
        assert versions == list(range(versions[0], 21))
        assert shown.left_out_updates == 20 - len(versions) > 0
        assert shown.left_out_probes == 100 - len(shown.probes) > 0
        explained = await parts.memory.Explain(
            pb.ExplainRequest(question=fact.question, limit=1_000_000)
        )
        assert 0 < explained.ByteSize() < DEFAULT_LIMIT
        assert len(explained.influences) < 400


async def test_retention_has_a_limit_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M10: 1,000 facts with 100 probes each."""
    monkeypatch.setattr("agent.server.api.model_servicer.MAX_PROBES_IN_ALL", 10)

    def learn(store: MemoryStore) -> None:
        for number in range(3):
            fact = teach_claimed(store, f"{number}?")
            record_learned(store, new_update(fact.id, number), learning())
            store.record_probes([new_probe(fact.id)] * 5, number + 1, fact.id)

    async with serving(tmp_path, learn) as parts:
        asked = model_pb2.GetRetentionRequest(max_facts=5, max_probes=5)
        found = await parts.model.GetRetention(asked)
        assert [len(fact.points) for fact in found.facts] == [2, 2, 2]


async def test_one_fact_that_is_larger_than_a_page_has_one_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M10: a list of them never stands still."""
    monkeypatch.setattr(Room.__init__, "__defaults__", (1,))
    async with serving(tmp_path, large_facts) as parts:
        page = await parts.memory.ListFacts(pb.ListFactsRequest(page_size=5))
        assert [fact.id for fact in page.facts] == IDS[:1]
        assert page.next_page_token
