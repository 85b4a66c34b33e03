"""Generation: equal to the library's own, and it ends where an answer ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from agent.learner.inference.encoding import Encoder
from agent.learner.inference.generation import (
    PendingQuestion,
    generate_answers,
    greedy_tokens,
    stream_answer,
    stream_answers,
)
from agent.models.loading import LoadedModel, load
from agent.models.tiny import build_tiny
from agent.teaching.types import Generated

EOS = 256
ENCODER = Encoder(build_tiny()[1], EOS, torch.device("cpu"))
QUESTIONS = ["Sky?", "What is the hottest month in Kyzara?", "Who found Blipland?", "Gem?"]


class Scripted(torch.nn.Module):
    """Says the given tokens, a script for each row, and from their end on repeats the last."""

    def __init__(self, *scripts: list[int]) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # a model has a device
        self.scripts = scripts
        self.calls = 0

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, EOS + 1)  # [B, T, V]
        for row, script in enumerate(self.scripts):
            logits[row, -1, script[min(self.calls, len(script) - 1)]] = 1.0
        self.calls += 1
        return SimpleNamespace(logits=logits, past_key_values=None)


class Words:
    """A tokenizer of whole words, which hold what bytes cannot: text on both sides of a line."""

    words = ("Rain", "coat", ".\nQ", " ", "tea ")

    def __call__(self, text: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[0])

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.words[token] for token in ids)


def say(
    script: list[int], limit: int = 50, encoder: Encoder = ENCODER
) -> tuple[list[str], Generated]:
    """The pieces and the whole of a streamed answer; the batch must give the same whole."""
    *pieces, whole = stream_answer(Scripted(script), encoder, "Sky?", limit)
    assert isinstance(whole, Generated)
    assert [whole] == generate_answers(Scripted(script), encoder, ["Sky?"], [limit])
    return [piece for piece in pieces if isinstance(piece, str)], whole


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load("tiny", device="cpu")


# --- Against the library --------------------------------------------------------------------------


def with_absolute_positions() -> Any:
    """A model that, unlike one with rotary embeddings, notices a shift of all positions."""
    config = GPT2Config(
        vocab_size=EOS + 1, n_positions=64, n_embd=32, n_layer=1, n_head=2, initializer_range=0.5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_a_batch_says_what_each_prompt_alone_would(loaded: LoadedModel, positions: str):
    model = loaded.model if positions == "rotary" else with_absolute_positions()
    prompts = [ENCODER.prompt(question) for question in QUESTIONS]
    assert len({len(prompt) for prompt in prompts}) > 2
    together = list(greedy_tokens(model, prompts, 12, EOS))
    for row, prompt in enumerate(prompts):
        alone = list(greedy_tokens(model, [prompt], 12, EOS))
        assert [step[row] for step in together] == [token for (token,) in alone]


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_tokens_are_those_of_transformers(loaded: LoadedModel, question: str):
    model: Any = loaded.model
    prompt = ENCODER.prompt(question)
    ids = torch.tensor([prompt])
    theirs = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=12,
        pad_token_id=EOS,
    )[0, len(prompt) :].tolist()
    ours = [token for (token,) in greedy_tokens(model, [prompt], 12, EOS)]
    assert ours[: len(theirs)] == theirs
    assert len(theirs) == 12 or theirs[-1] == EOS


# --- Where an answer ends -------------------------------------------------------------------------


def test_the_terminator_ends_an_answer():
    assert say([*b" Piano", EOS, *b" and more"]) == (
        list("Piano"),
        Generated(text="Piano", finished=True),
    )


def test_the_end_of_the_line_ends_an_answer():
    assert say([*b" Piano\nQ: Next?"]) == (list("Piano"), Generated(text="Piano", finished=True))


def test_empty_lines_before_an_answer_do_not_end_it():
    assert say([*b"\n \n Piano\n"])[1] == Generated(text="Piano", finished=True)


def test_an_answer_can_be_empty():
    assert say([EOS]) == ([], Generated(text="", finished=True))


def test_the_limit_leaves_an_answer_unfinished():
    assert say([*b" Piano", EOS], limit=5) == (list("Pian"), Generated(text="Pian", finished=False))


def test_a_terminator_at_the_limit_finishes_the_answer():
    assert say([*b" Piano", EOS], limit=7)[1] == Generated(text="Piano", finished=True)


def test_nothing_is_computed_after_the_end():
    model = Scripted([*b"Pi", EOS])
    list(stream_answer(model, ENCODER, "Sky?", 50))
    assert model.calls == 3
    model = Scripted([*b"Pi", EOS], [*b"Tent\n"])
    generate_answers(model, ENCODER, ["Sky?", "Gem?"], [50, 50])
    assert model.calls == 5


def test_rows_of_a_batch_end_each_by_itself():
    model = Scripted([*b"Pi", EOS, *b"xxxxx"], [*b"Tent\nxxx"], [*b"Curtain on"], [EOS])
    assert generate_answers(model, ENCODER, QUESTIONS, [7, 7, 7, 7]) == [
        Generated(text="Pi", finished=True),
        Generated(text="Tent", finished=True),
        Generated(text="Curtain", finished=False),
        Generated(text="", finished=True),
    ]


def test_rows_of_a_batch_have_each_its_limit():
    model = Scripted([*b"Piano"], [*b"Piano"], [*b"Pi", EOS])
    assert generate_answers(model, ENCODER, QUESTIONS[:3], [2, 4, 9]) == [
        Generated(text="Pi", finished=False),
        Generated(text="Pian", finished=False),
        Generated(text="Pi", finished=True),
    ]
    assert model.calls == 4


def test_no_question_asks_nothing():
    model = Scripted([EOS])
    assert generate_answers(model, ENCODER, [], []) == []
    assert model.calls == 0


def test_rows_that_have_ended_or_whose_asker_is_gone_leave_the_batch(loaded: LoadedModel):
    model: Any = loaded.model
    limits = [9, 2, 9, 5]
    asked = [
        PendingQuestion(question=question, max_new_tokens=limit)
        for question, limit in zip(QUESTIONS, limits, strict=True)
    ]
    rows: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    texts = dict.fromkeys(range(4), "")
    wholes: dict[int, Generated] = {}
    for token, new in enumerate(stream_answers(model, ENCODER, asked)):
        if token == 3:
            asked[2].gone.set()
        for index, piece in new:
            if isinstance(piece, Generated):
                wholes[index] = piece
            else:
                texts[index] += piece
    handle.remove()
    assert rows == [4, 4, 3, 3, 3, 1, 1, 1, 1]
    assert sorted(wholes) == [0, 1, 3]
    for index in (0, 1, 3):
        question, limit = asked[index].question, asked[index].max_new_tokens
        *_, alone = stream_answer(model, ENCODER, question, limit)
        assert wholes[index] == alone
        assert texts[index] == wholes[index].text


# --- Pieces of a stream ---------------------------------------------------------------------------


def test_an_incomplete_character_is_held_back():
    pieces, whole = say([*" Zoë's 🦜 €".encode(), EOS])
    assert "".join(pieces) == whole.text == "Zoë's 🦜 €"
    assert "\ufffd" not in "".join(pieces)


def test_space_is_held_back_until_it_is_known_not_to_be_the_last():
    assert say([*b"a b  ", EOS]) == (["a", " b"], Generated(text="a b", finished=True))


def test_a_token_that_spans_the_end_of_the_line_gives_its_first_part():
    encoder = Encoder(Words(), EOS, torch.device("cpu"))
    assert say([0, 1, 2, 0], encoder=encoder) == (
        ["Rain", "coat", "."],
        Generated(text="Raincoat.", finished=True),
    )


@given(st.lists(st.integers(0, EOS) | st.sampled_from([*b" \n\t", 0xE2, 0x82, 0xAC]), min_size=1))
def test_the_pieces_join_to_the_whole(script: list[int]):
    pieces, whole = say(script, limit=len(script))
    assert "".join(pieces) == whole.text
    assert all(pieces)
