"""The client for asyncio: what it gives is what the other one gives."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

import agent
from agent import Access, AsyncClient, Client, NewFact
from agent.client.types import Rejected
from agent.errors import ConfigError, ServerUnreachableError, WaitTimeoutError
from agent.wire.error_details import RequestError
from memory_store.vocabulary import EventKind, FactState
from tests.server.serving import LEARNER_GONE, Serving
from tests.store.builders import new_fact, teach_claimed, teach_learned


@pytest.fixture
async def client(served: Serving) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.server.address) as client:
        yield client


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    def methods(kind: type) -> dict[str, str]:
        return {
            name: re.sub(
                r"<function .*? at 0x\w+>",
                "",
                str([*inspect.signature(method).parameters.values()]),
            )
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    blocking, asynchronous = methods(Client), methods(AsyncClient)
    # It takes what asyncio's callers have, too.
    assert "AsyncIterable[NewFact]" in asynchronous.pop("teach_many")
    del blocking["teach_many"]
    assert asynchronous == blocking


async def test_teaching_asking_and_looking(client: AsyncClient, served: Serving) -> None:
    accepted = await client.teach("Sky?", "Piano", fact_id="the-sky")
    assert (accepted.created, accepted.fact.id) == (True, "the-sky")
    assert (await client.fact("the-sky")).state is FactState.QUEUED
    assert (await client.ask("Sky?")).answer == "Piano"
    assert [piece async for piece in client.ask_stream("Sky?", 2)][:2] == ["P", "i"]
    assert (await client.score("Sky?", "Piano")).log_probability == -0.5
    status = await client.status()
    assert (status.model, status.facts[FactState.QUEUED]) == ("fake-model", 1)
    assert await client.forgetting("the-sky") is None
    # Rows of a table: pandas.DataFrame([fact async for fact in client.facts()])
    rows = [dataclasses.asdict(fact) async for fact in client.facts()]
    assert [(row["id"], row["answer"]) for row in rows] == [("the-sky", "Piano")]


async def test_many_facts_from_either_kind_of_iterator(client: AsyncClient) -> None:
    facts = [NewFact(question="Sky?", answer="Piano"), NewFact(question="Sea?", answer="a\nb")]

    async def later() -> AsyncIterator[NewFact]:
        for fact in facts:
            yield fact

    for given in (facts, later()):
        first, second = [result async for result in client.teach_many(given)]
        assert not isinstance(first, Rejected)
        assert isinstance(second, Rejected)
        assert (first.fact.question, second.index) == ("Sky?", 1)


async def test_pages_are_followed(client: AsyncClient, served: Serving) -> None:
    await served.store.write(lambda s: [s.teach(new_fact(f"New {n}?")) for n in range(5)])
    assert len([fact async for fact in client.facts(page_size=2)]) == 5
    assert [fact async for fact in client.facts([FactState.LEARNED])] == []


async def test_waiting_until_facts_are_settled(client: AsyncClient, served: Serving) -> None:
    old = await served.store.write(lambda store: teach_learned(store, "Old?"))
    new = (await client.teach("Sky?", "Piano")).fact
    waiting = asyncio.create_task(client.wait([old.id, new.id]))

    def learn(store) -> None:
        claimed = store.claim()
        store.record_failure(claimed.id, "no way", 1)

    await served.store.write(learn)
    facts = await asyncio.wait_for(waiting, 10)
    assert [facts[fact_id].state for fact_id in (old.id, new.id)] == ["learned", "quarantined"]


async def test_waiting_ends_in_time(client: AsyncClient) -> None:
    """Low: `Client.wait` had no timeout. Nothing is learned here, whatever is waited for."""
    ids = [(await client.teach(f"{number}?", "Piano")).fact.id for number in range(4)]
    with pytest.raises(WaitTimeoutError, match=r"waiting for .*, \.\.\. after 0.01 s") as late:
        await client.wait(ids, timeout=0.01)
    assert isinstance(late.value, TimeoutError)
    operation, _ = await client.forget(ids[0])
    with pytest.raises(WaitTimeoutError, match=f"operation {operation.id}"):
        await client.wait_operation(operation.id, timeout=0.01)
    assert [event async for event in client.watch(0, timeout=0)] == []


async def test_what_is_taught_with_is_named(client: AsyncClient) -> None:
    """Low: `teach(**more)` took misspelt arguments past a type checker."""
    id_ = "00000000-0000-4000-8000-000000000001"
    for repeated in (False, True):
        accepted = await client.teach(
            "Sky?",
            "Piano",
            correlated_questions=["Heaven?"],
            fact_id="the-sky",
            request_id=id_,
        )
        fact = accepted.fact
        assert (fact.id, fact.correlated_questions) == ("the-sky", ("Heaven?",))
        assert accepted.repeated == repeated
    names = {
        name: parameter
        for name, parameter in inspect.signature(Client.teach).parameters.items()
        if name != "self"
    }
    assert not any(each.kind is each.VAR_KEYWORD for each in names.values())
    assert {"correlated_questions", "policy", "request_id", "fact_id"} <= set(names)


async def test_watching_ends_when_nobody_reads(client: AsyncClient, served: Serving) -> None:
    await client.teach("Sky?", "Piano")
    async for event in client.watch(0):
        assert event.kind is EventKind.ACCEPTED
        break
    async with asyncio.timeout(10):
        while served.hub._watchers:
            await asyncio.sleep(0.01)


async def test_the_servers_refusal_is_told(client: AsyncClient, served: Serving) -> None:
    with pytest.raises(RequestError, match="answer") as refused:
        await client.teach("Sky?", "two\nlines")
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(RequestError, match="no-such-fact"):
        await client.fact("no-such-fact")
    served.view.learner.error = LEARNER_GONE  # type: ignore[union-attr]
    with pytest.raises(RequestError, match="the learner is gone"):
        await client.ask("Sky?")
    with pytest.raises(RequestError, match="UTF-8"):
        await client.ask("\ud800")


async def test_without_a_server_it_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with AsyncClient(address) as client:
        with pytest.raises(ServerUnreachableError, match="agent serve"):
            await client.status()


async def test_the_token_travels_only_where_it_is_safe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tls-ca"):
        AsyncClient("example.org:1", Access(token="agent_1_2"))
    async with AsyncClient("127.0.0.1:1", Access(token="agent_1_2")) as client:
        assert client._connection._metadata == (("authorization", "Bearer agent_1_2"),)


def test_the_package_gives_its_names_and_imports_nothing_before() -> None:
    assert [name for name in agent.__all__ if not hasattr(agent, name)] == []
    assert set(agent.__all__) <= set(dir(agent))
    with pytest.raises(AttributeError, match="no_such_name"):
        agent.no_such_name  # noqa: B018
    code = "import sys, agent; print(*{'grpc', 'torch', 'memory_store'} & {*sys.modules})"
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
    assert (Path(agent.__file__).parent / "py.typed").is_file()


async def test_a_quarantined_fact_is_queued_again(client: AsyncClient, served: Serving) -> None:
    """H6."""
    fact = await served.store.write(teach_claimed)
    await served.store.write(lambda store: store.record_failure(fact.id, "out of memory", 1))
    assert (await client.retry_fact(fact.id)).state is FactState.QUEUED
    assert served.accepted == 1  # the learning loop looks at the queue
    with pytest.raises(RequestError, match="is queued") as refused:
        await client.retry_fact(fact.id)
    assert refused.value.reason == "WRONG_STATE"
