"""The sampler: what it draws, what it counts, and that neither depends on company."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

from agent.errors import ConfigError, ModelError
from agent.learner.engine.cuda_graphs import Runner
from agent.learner.engine.kv_cache import KvCache, Prompts
from agent.learner.sampling import cell as cell_module
from agent.learner.sampling import decode_batch as rows_module
from agent.learner.sampling.answer_matcher import MAYBE, Vocabulary, occurs
from agent.learner.sampling.decode_batch import BatchShape, DecodeBatch, PausedText, TextStart
from agent.learner.sampling.sampler import PAPER_SAMPLING, Cell, CellResult, Sampler, Sampling
from tests.learner.letters import EOS, PIECES, Letters, small_model, surprise
from tests.learner.models import FAMILIES, one_thread

LETTERS = Letters()
PROMPT = "ab"
SETTINGS = {
    "temperature": Sampling(temperature=0.5, top_k=0, max_new_tokens=2),
    "top_k": Sampling(top_k=3, max_new_tokens=2),
    "top_p": Sampling(top_k=0, top_p=0.6, max_new_tokens=2),
    "all": Sampling(temperature=2.0, top_k=6, top_p=0.8, max_new_tokens=2),
}
CELLS = [
    Cell(prompt="ab", answer="fa", samples=70, sampling=Sampling(max_length=12), key="1"),
    Cell(prompt="gcd e", answer="cda", samples=40, sampling=SETTINGS["all"], key="2"),
    Cell(
        prompt="a", answer="g", samples=9, sampling=Sampling(max_new_tokens=20, top_p=0.9), key="3"
    ),
    Cell(prompt="ab", answer="eg", samples=30, sampling=Sampling(max_length=9, top_k=4), key="4"),
]


# With looks ahead, for spellings of several lengths; and one that is looked at after each token.
ESTIMATED = [
    *(replace(cell, estimate=True, key=f"{cell.key} estimated") for cell in CELLS),
    Cell(
        prompt="ab",
        answer="gegf",
        samples=20,
        sampling=Sampling(max_length=12),
        key="long",
        estimate=True,
    ),
    Cell(prompt="ab", answer="é", samples=20, sampling=Sampling(max_length=12), key="5"),
]


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model()


def sampler(model: Any, rows: int = 64, **settings: Any) -> Sampler:
    return Sampler(model, LETTERS, eos=EOS, rows=rows, **settings)


def every_text(monkeypatch: pytest.MonkeyPatch, model: Any, cell: Cell) -> Counter[str]:
    """All sampled texts of a cell, not only the first."""
    monkeypatch.setattr(cell_module, "TEXTS", cell.samples)
    [sampled] = sampler(model, rows=500).sample([cell])
    return Counter(sampled.texts)


def generated(model: Any, settings: Sampling, number: int) -> Counter[str]:
    ids = LETTERS(PROMPT).input_ids
    torch.manual_seed(1)
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        do_sample=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=number,
    )
    return Counter(LETTERS.decode(row) for row in out.tolist())


@pytest.mark.parametrize("name", SETTINGS)
def test_texts_are_distributed_as_those_of_generate(
    name: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(prompt=PROMPT, answer="never", samples=3000, sampling=SETTINGS[name], key="chi")
    ours = every_text(monkeypatch, model, cell)
    for other, settings in SETTINGS.items():
        theirs = generated(model, settings, 3000)
        texts = sorted({*ours, *theirs})
        found = surprise([ours[t] for t in texts], [theirs[t] for t in texts])
        # The others show that the test would notice.
        assert found < 4 if other == name else found > 10, (name, other, found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prompt_is_read_as_in_a_plain_forward_pass(family: str) -> None:
    model = small_model(family)
    texts = [[1, 2, 3, 4, 5], [6, 7], [1, 2, 7, 7, 1, 0, 3]]
    slots = KvCache(model, rows=3, width=20)
    every = slots.columns(20)
    with torch.inference_mode():
        # Two begin alike; of the other prompt there is nothing to be read before.
        both = Prompts(model, [[6], [1, 2]])
        slots.fill(torch.tensor([0, 1, 2]), both, torch.tensor([1, 0, 1]))
        lengths = [1, 0, 1]
        for row, text in enumerate(texts):
            while lengths[row] < len(text):
                tokens = torch.tensor(
                    [[t[n] if n < len(t) else 0] for t, n in zip(texts, lengths, strict=True)]
                )
                before = torch.tensor(lengths)
                seen = slots.look(torch.tensor([row]), tokens[[row]], before[[row]], every)[0, -1]
                read = slots.read(tokens, before, every)[row, -1]
                lengths[row] += 1
                plain = model(input_ids=torch.tensor([text[: lengths[row]]])).logits[0, -1]
                torch.testing.assert_close(read, plain, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(seen, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_comes_out_the_same_in_any_company(family: str) -> None:
    model = small_model(family)
    together = sampler(model, rows=48).sample(CELLS)
    assert [sampled.samples for sampled in together] == [cell.samples for cell in CELLS]
    assert 0 < sum(sampled.correct for sampled in together) < sum(cell.samples for cell in CELLS)
    alone = [
        sampler(model, rows=rows).sample([cell])[0]
        for rows, cell in zip((5, 1, 64, 16), CELLS, strict=True)
    ]
    assert alone == together
    backwards = sampler(model, rows=20).sample(CELLS[::-1])
    assert backwards[::-1] == together


def without_rounding(found: Sequence[CellResult]) -> list[object]:
    """What is the same however many places are looked at together."""
    return [
        (
            replace(one, estimate=None),
            one.estimate
            and (
                one.estimate.extra_tokens,
                pytest.approx(one.estimate.probability, rel=1e-5),
                pytest.approx(one.estimate.standard_error, rel=1e-5),
            ),
        )
        for one in found
    ]


def values(found: Sequence[CellResult]) -> list[object]:
    return [
        (
            replace(one, estimate=None),
            one.estimate
            and (
                one.estimate.extra_tokens,
                one.estimate.probability,
                one.estimate.standard_error,
            ),
        )
        for one in found
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_how_seldom_rows_are_looked_at_changes_nothing(family: str) -> None:
    model = small_model(family)
    cells = [*CELLS, *ESTIMATED]
    expected = sampler(model, rows=48).sample(cells)
    for steps, rows in ((3, 48), (8, 48), (5, 7)):
        found = sampler(model, rows=rows, steps=steps).sample(cells)
        assert values(found) == without_rounding(expected)


def drawn(model: Any, room: Sequence[int], steps: int) -> list[list[PausedText]]:
    """What looks notice, of texts with room for so many tokens after the prompt."""
    watch = Vocabulary(LETTERS, len(PIECES)).answer_states(["never"])
    shape = BatchShape(
        rows=len(room),
        width=16,
        most=3,
        states=len(watch.table),
        spellings=0,
        longest=0,
        steps=steps,
    )
    rows = DecodeBatch(model, eos=EOS, vocabulary=len(PIECES), shape=shape)
    rows.use_states(watch.table)
    prompts = Prompts(model, [[1, 2]])
    stream = np.random.default_rng(1)
    starts = [
        TextStart(
            ids=[1, 2],
            prompts=prompts,
            prompt=0,
            limit=2 + tokens,
            sampling=Sampling(top_k=3, max_new_tokens=tokens),
            state=watch.begins["never"],
            spellings=(),
            uniforms=[stream.random(9)[:tokens]],
        )
        for tokens in room
    ]
    rows.start(range(len(room)), starts)
    looks = []
    for _ in range(max(room) + 1):
        rows.launch()
        rows.look()
        looks.append(rows.paused())
    return [look for look in looks if look]


@torch.inference_mode()
def test_a_row_is_idle_from_its_end_to_the_next_look(model: Any) -> None:
    with torch.inference_mode(False):
        model = small_model()
        model.get_output_embeddings().weight[EOS] = -10  # no text ends by itself
    room = [2, 7, 7]
    first, rest = drawn(model, room, steps=5)
    assert [(one.row, len(one.ids), one.ended, one.suspected) for one in first] == [
        (0, 4, True, False)
    ]
    assert [(one.row, len(one.ids), one.ended) for one in rest] == [(1, 9, True), (2, 9, True)]
    each = [one for look in drawn(model, room, steps=1) for one in look]
    assert [one.ids for one in (*first, *rest)] == [one.ids for one in each]


def test_texts_that_are_suspected_at_each_token_are_looked_at_at_each(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = DecodeBatch._step, 0

    def counted(rows: DecodeBatch, columns: Tensor, on: Tensor) -> tuple[Tensor, ...]:
        nonlocal calls
        calls += 1
        return step(rows, columns, on)

    monkeypatch.setattr(DecodeBatch, "_step", counted)
    cell = Cell(prompt="ab", answer="é", samples=1, sampling=Sampling(max_length=30), key="1")
    [found] = sampler(model, steps=8).sample([cell])
    assert calls == found.tokens > 2


class Rehearsed(Runner):
    """Does on a CPU what a graph does: tries out, and leaves inputs and outputs where they are."""

    has_graphs = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.static: dict[object, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}

    def tries_out(self, name, inputs):
        return self._named(name, inputs) not in self.static

    def run(self, name, function, inputs):
        key = self._named(name, inputs)
        if key not in self.static:
            own = tuple(tensor.clone() for tensor in inputs)
            function(*own)
            self.static[key] = (own, function(*own))
        own, outputs = self.static[key]
        for static, tensor in zip(own, inputs, strict=True):
            static.copy_(tensor)
        for output, tensor in zip(outputs, function(*own), strict=True):
            output.copy_(tensor)
        return outputs

    @staticmethod
    def _named(name, inputs):
        return (name, *(tuple(tensor.shape) for tensor in inputs))


def test_steps_that_are_tried_out_first_give_the_same(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [*CELLS, *ESTIMATED]
    expected = sampler(model, rows=48).sample(cells)
    monkeypatch.setattr(rows_module, "Runner", Rehearsed)
    assert values(sampler(model, rows=48, steps=4).sample(cells)) == without_rounding(expected)


def test_rows_that_are_dear_are_used_again_while_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "Runner", Rehearsed)
    changing = small_model(seed=0)
    kept = sampler(changing, rows=64, steps=4)
    kept.sample(CELLS)
    [rows] = kept._kept
    changing.load_state_dict(small_model(seed=1).state_dict())  # where the others were
    some, others = kept.sample(CELLS[:2]), kept.sample(CELLS[2:])
    assert kept._kept == [rows]
    monkeypatch.setattr(rows_module, "Runner", Runner)
    assert [*some, *others] == sampler(small_model(seed=1)).sample(CELLS)
    monkeypatch.setattr(rows_module, "Runner", Rehearsed)
    # Longer texts do not fit, but after that both do.
    kept.sample([replace(CELLS[0], samples=50, sampling=Sampling(max_length=40))])
    [wider] = kept._kept
    assert (rows.shape.rows, rows.shape.width, wider.shape.width) == (64, 24, 40)
    assert wider.shape == replace(rows.shape, width=40)
    kept.sample(CELLS[:3])
    assert kept._kept == [wider]
    # A graph would read weights where they no longer are.
    weight = changing.get_output_embeddings().weight
    weight.data = weight.data.clone()
    kept.sample(CELLS[:3])
    assert wider not in kept._kept


class Operators(TorchDispatchMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # A new cache is made of empty lists, from which nothing is copied.
        if any(part.numel() for part in args if isinstance(part, Tensor)):
            self.names.add(func.overloadpacket.__name__)
        if func.overloadpacket.__name__ in ("index", "index_put_"):
            dtypes = {index.dtype for index in args[1] if index is not None}
            assert dtypes <= {torch.int64}  # a mask would be counted first
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_step_asks_the_device_for_anything(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = Operators()

    class Observed(Rehearsed):
        def run(self, name, function, inputs):
            with operators:
                return function(*inputs)

    monkeypatch.setattr(rows_module, "Runner", Observed)
    sampler(small_model(family), steps=3).sample(ESTIMATED)
    assert {"topk", "where", "index_put_"} <= operators.names
    waits = {"_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero"}
    # From the host, a tensor comes by `lift_fresh`.
    assert not operators.names & {*waits, "lift_fresh", "lift_fresh_copy", "_to_copy"}


def test_another_key_gives_other_samples(model: Any) -> None:
    cell, other = (
        Cell(prompt="ab", answer="fa", samples=20, sampling=Sampling(max_length=9), key=key)
        for key in ("1", "2")
    )
    some, same, others = sampler(model).sample([cell, cell, other])
    assert some == same
    assert some.texts != others.texts


def test_counts_are_those_of_the_texts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "TEXTS", 70)
    for cell, found in zip(CELLS, sampler(model).sample(CELLS), strict=True):
        limit = cell.sampling.limit(len(LETTERS(cell.prompt).input_ids))
        right = [text for text in found.texts if cell.answer in text]
        assert (len(found.texts), found.correct) == (cell.samples, len(right))
        assert list(found.correct_texts) == right
        # A right text ends with the answer: the row was given up as soon as it occurred.
        assert all(text.index(cell.answer) == len(text) - len(cell.answer) for text in right)
        lengths = [len(LETTERS(text).input_ids) for text in found.texts]
        assert max(lengths) <= limit
        assert all(text.startswith(cell.prompt) for text in found.texts)


def test_a_row_ends_at_the_terminator(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "TEXTS", 50)
    cell = Cell(prompt="a", answer="never", samples=50, sampling=Sampling(max_length=30), key="e")
    [found] = sampler(model).sample([cell])
    ended = sum(len(LETTERS(text).input_ids) < 20 for text in found.texts)
    assert ended > 10
    # One more for each terminator, which leaves no text; "c", "d" count twice as they were drawn.
    letters = sum(len(text) - 1 for text in found.texts)
    assert letters - sum(text.count("cd") for text in found.texts) + ended <= found.tokens
    assert found.tokens <= letters + 50


def test_the_limit_counts_the_prompt_or_does_not(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_module, "TEXTS", 40)
    for settings in (Sampling(max_length=6), Sampling(max_new_tokens=4)):
        cell = Cell(prompt="ab", answer="never", samples=40, sampling=settings, key="l")
        [found] = sampler(model).sample([cell])
        assert max(len(text.replace("cd", "c")) for text in found.texts) == 6


def test_an_answer_in_the_prompt_is_right_at_once(model: Any) -> None:
    cell = Cell(prompt="a fad", answer="FAD", samples=8, key="p", estimate=True)
    [found] = sampler(model).sample([cell])
    assert (found.correct, found.tokens, found.texts) == (8, 0, ("a fad",) * 3)
    assert found.estimate is not None
    assert found.estimate.probability == 1


class Starved:
    """A model whose device takes only so many rows."""

    def __init__(self, model: Any, rows: int, error: BaseException) -> None:
        self._model, self._rows, self._error = model, rows, error

    def __call__(self, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > self._rows:
            raise self._error
        return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def broken_capture() -> RuntimeError:
    """What a CUDA graph's end says when there was too little memory on the way."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        broken_capture(),
    ],
)
def test_too_many_rows_for_the_memory_are_halved_and_it_is_said_once(
    model: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    starved = sampler(Starved(model, 20, error), rows=96)
    with caplog.at_level(logging.WARNING):
        found = starved.sample(CELLS)
    assert starved.rows == 12
    assert [record.message for record in caplog.records] == [
        "too little memory for 96 texts at once: going on with fewer"
    ]
    assert found == sampler(model).sample(CELLS)


@pytest.mark.parametrize(
    ("runner", "at"), [*((Runner, n) for n in (2, 3, 4)), *((Rehearsed, n) for n in range(2, 9))]
)
def test_memory_that_runs_out_on_the_way_costs_no_sample(
    model: Any, monkeypatch: pytest.MonkeyPatch, runner: type[Runner], at: int
) -> None:
    expected = sampler(model).sample(CELLS)
    monkeypatch.setattr(rows_module, "Runner", runner)
    launch, calls = DecodeBatch.launch, 0

    def failing(rows: DecodeBatch) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return launch(rows)

    monkeypatch.setattr(DecodeBatch, "launch", failing)
    halved = sampler(model, rows=64, steps=4)
    assert halved.sample(CELLS) == expected
    assert halved.rows == 32


def test_no_memory_for_a_single_row_is_an_error(model: Any) -> None:
    for rows in (2, 0):  # it suffices to look at the model, or not even for that
        starved = Starved(model, rows, torch.OutOfMemoryError("CUDA out of memory"))
        with pytest.raises(ModelError, match="even one text"):  # noqa: PT012
            hungry = sampler(starved, rows=4)
            starved._rows = 0
            hungry.sample(CELLS)


def test_other_errors_are_not_taken_for_it(model: Any) -> None:
    broken = Starved(model, 2, RuntimeError("expected a mask"))
    with pytest.raises(RuntimeError, match="expected a mask"):
        sampler(broken).sample(CELLS)


def test_a_model_whose_cache_cannot_be_shared_is_refused() -> None:
    no_keys = MambaForCausalLM(MambaConfig(vocab_size=10, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(ModelError, match="MambaForCausalLM cannot be sampled from here"):
        sampler(no_keys.eval())
    # Positions are told by the mask, which is another one here.
    alibi = BloomForCausalLM(BloomConfig(vocab_size=10, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="BloomForCausalLM cannot be sampled from here"):
        sampler(alibi.eval())


def test_weights_may_change_between_two_calls(model: Any) -> None:
    both = sampler(small_model(seed=0))
    first = both.sample(CELLS)
    both._model.load_state_dict(small_model(seed=1).state_dict())
    assert both.sample(CELLS) == sampler(small_model(seed=1)).sample(CELLS) != first


def test_a_model_of_nan_says_nothing(model: Any) -> None:
    broken = sampler(small_model())
    with torch.no_grad():
        broken._model.get_output_embeddings().weight.fill_(float("nan"))
    for cell, found in zip(CELLS, broken.sample(CELLS), strict=True):
        assert (found.correct, found.tokens) == (0, cell.samples)  # their terminators
        assert set(found.texts) == {cell.prompt}


def test_only_after_tokens_that_an_answer_may_end_with_texts_are_looked_at() -> None:
    words = ["ab", "cda", "b c", "f ", "é"]
    watch = Vocabulary(LETTERS, len(PIECES)).answer_states(words)
    ends = []
    for begin, size in zip(watch.begins.values(), (2, 3, 2, 1, 1), strict=True):
        suspected = (watch.table[begin : begin + size] == MAYBE).any(0).nonzero()[:, 0]
        ends.append({PIECES[token] for token in suspected.tolist()} - {"", " "})
    every = {*PIECES} - {"", " "}
    assert ends == [{"b"}, {"a"}, {"c", "cd"}, every, every]


def test_no_text_in_which_an_answer_occurs_is_missed() -> None:
    words = ["ab", "aab", "a b", "cdcd", "gag", "Fa", "cda", "bbab"]
    watch = Vocabulary(LETTERS, len(PIECES)).answer_states(words)
    stream = random.Random(3)
    suspected = occurred = 0
    for word in words * 20:
        ids = [1]
        state = watch.state(word, LETTERS.decode(ids))
        while len(ids) < 150:
            ids.append(stream.randrange(len(PIECES)))
            text = LETTERS.decode(ids)
            state = int(watch.table[state, ids[-1]])
            suspected += state == MAYBE
            if occurs(word, text):
                occurred += 1
                assert state == MAYBE, (word, text)
                break
            if state == MAYBE:  # as rows do after a look
                state = watch.state(word, text)
    # Only space can deceive.
    assert 50 < occurred < suspected < 2 * occurred


def test_parts_of_characters_may_be_the_last_letter_of_an_answer() -> None:
    class Bytes:
        """A token is a byte; the Kelvin sign, which is a k in lower case, has three."""

        pieces = (*(bytes([n]) for n in b"axk "), *(bytes([n]) for n in "\u212aé".encode()))

        def __len__(self) -> int:
            return len(self.pieces)

        def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
            return [b"".join(self.pieces[n] for n in row).decode(errors="replace") for row in rows]

    vocabulary = Vocabulary(Bytes(), len(Bytes()))
    stream = random.Random(4)
    decode = Bytes().batch_decode
    for word in ("ak", "xa", "k", "kx") * 200:
        watch = vocabulary.answer_states([word])
        ids: list[int] = []
        state = watch.begins[word]
        while len(ids) < 12:
            # The sign comes whole, sometimes.
            ids += [4, 5, 6][: stream.randint(1, 4)] if stream.random() < 0.3 else []
            ids.append(stream.randrange(len(Bytes())))
            [text] = decode([ids])
            earlier, state = state, watch.begins[word]
            for n in range(1, len(ids) + 1):
                [part] = decode([ids[:n]])
                state = int(watch.table[state, ids[n - 1]])
                if occurs(word, part):
                    break
                if state == MAYBE:
                    state = watch.state(word, part)
            if occurs(word, text):
                assert state == MAYBE, (word, text, earlier)
                break
    # Where it cannot be one of those two characters, nobody looks.
    table = vocabulary.answer_states(["xa"]).table
    assert not (table[1:, 4:] == MAYBE).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0, "max_length": 5}, "temperature"),
        ({"temperature": float("nan"), "max_length": 5}, "temperature"),
        ({"top_k": -1, "max_length": 5}, "top_k"),
        ({"top_p": 0.0, "max_length": 5}, "top_p"),
        ({"top_p": 1.1, "max_length": 5}, "top_p"),
        ({}, "either max_length"),
        ({"max_length": 5, "max_new_tokens": 5}, "either max_length"),
        ({"max_length": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**settings)


def test_bad_cells_are_refused(model: Any) -> None:
    right: dict[str, Any] = {"prompt": "a", "answer": "b", "samples": 1, "key": ""}
    for wrong in ({"prompt": ""}, {"answer": " "}, {"samples": 0}):
        with pytest.raises(ConfigError):
            Cell(**right | wrong)
    with pytest.raises(ConfigError, match="0 rows"):
        sampler(model, rows=0)
    with pytest.raises(ConfigError, match="0 steps"):
        sampler(model, steps=0)
    full = Cell(prompt="a" * 50, answer="b", samples=1, sampling=PAPER_SAMPLING, key="")
    with pytest.raises(ConfigError, match="leaves no room in max_length 50"):
        sampler(model).sample([full])
    long = Cell(prompt="a", answer="b", samples=1, sampling=PAPER_SAMPLING, key="")
    with pytest.raises(ConfigError, match="longer than the model takes"):
        sampler(model, max_tokens=49).sample([long])


def test_results_come_as_soon_as_they_are_done(model: Any) -> None:
    order = [number for number, _ in sampler(model, rows=16).finished(CELLS)]
    assert sorted(order) == [0, 1, 2, 3]
    assert order.index(0) < order.index(3)
    assert sampler(model).sample([]) == []
