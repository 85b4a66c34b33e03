"""What the user has chosen, and what each key does. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.monitor.keys import BACKSPACE, DOWN, END, ENTER, ESCAPE, HOME, PAGE_DOWN, PAGE_UP, UP
from agent.monitor.state import State, probability
from memory_store.vocabulary import Fact

PAGE = 10
LONGEST_FILTER = 60


class Page(StrEnum):
    """What fills the screen."""

    OVERVIEW = "overview"
    FACTS = "facts"
    DETAIL = "detail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ui:
    """What is shown, and of what.

    Attributes:
        page: what fills the screen.
        selected: id of the selected fact; empty for the first.
        filter: show only facts and events with this text, or in this state.
        typing: keys edit the filter.
        notice: a message that is shown until the next key.
        quit: the user wants to leave.
    """

    page: Page = Page.OVERVIEW
    selected: str = ""
    filter: str = ""
    typing: bool = False
    notice: str = ""
    quit: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """A request to pause or to resume learning."""

    paused: bool


@dataclass(frozen=True, slots=True)
class ShowFact:
    """A request for the history of a fact."""

    fact_id: str


Request = Pause | ShowFact


def press(ui: Ui, key: str, state: State) -> tuple[Ui, Request | None]:
    """Handles a key.

    Args:
        ui: the choices before.
        key: a character, or a name of `agent.monitor.keys`.
        state: the state of the monitor.

    Returns:
        The choices after it, and the request to the server, if any.
    """
    ui = replace(ui, notice="")
    if ui.typing:
        return _typed(ui, key), None
    match key:
        case "q":
            return replace(ui, quit=True), None
        case "p":
            return _pause(ui, state)
        case "/":
            return replace(ui, typing=True), None
        case "f":
            return replace(ui, page=Page.FACTS), None
    if key == ESCAPE:
        return _back(ui), None
    if ui.page is Page.OVERVIEW:
        # Enter and the arrows open the facts too, for users who do not know `f`.
        opens = key in (ENTER, UP, DOWN)
        return (replace(ui, page=Page.FACTS) if opens else ui), None
    return _among_facts(ui, key, state)


def shown_facts(state: State, ui: Ui) -> list[Fact]:
    """Returns the facts that pass the filter, newest first."""
    facts = sorted(state.facts.values(), key=lambda fact: fact.accepted_at, reverse=True)
    return [fact for fact in facts if passes(ui.filter, fact.id, state)]


def passes(wanted: str, fact_id: str, state: State) -> bool:
    """Whether a fact passes a filter. Without a fact, only an empty filter is passed."""
    if not wanted:
        return True
    fact = state.facts.get(fact_id)
    if fact is None:
        return False
    wanted = wanted.casefold()
    if wanted == fact.state.value:
        return True
    if wanted == "lost":
        known = probability(state, fact_id)
        return known is not None and known < 0.5
    texts = (fact.id, fact.question, fact.answer)
    return any(wanted in text.casefold() for text in texts)


def selected_of(facts: list[Fact], ui: Ui) -> int:
    """Returns the index of the selected fact; 0 if it is not in the list."""
    return next((n for n, fact in enumerate(facts) if fact.id == ui.selected), 0)


def _typed(ui: Ui, key: str) -> Ui:
    if key == ENTER:
        return replace(ui, typing=False)
    if key == ESCAPE:
        return replace(ui, typing=False, filter="")
    if key == BACKSPACE:
        return replace(ui, filter=ui.filter[:-1])
    if len(key) == 1 and key.isprintable():
        return replace(ui, filter=(ui.filter + key)[:LONGEST_FILTER])
    return ui


def _pause(ui: Ui, state: State) -> tuple[Ui, Request | None]:
    if not state.connected or state.status is None:
        return replace(ui, notice="no server: nothing to pause"), None
    paused = not state.status.learning_paused
    notice = "learning pauses after the current fact" if paused else "learning resumes"
    return replace(ui, notice=notice), Pause(paused)


def _back(ui: Ui) -> Ui:
    if ui.page is Page.DETAIL:
        return replace(ui, page=Page.FACTS)
    if ui.page is Page.FACTS:
        return replace(ui, page=Page.OVERVIEW)
    return replace(ui, filter="")


def _among_facts(ui: Ui, key: str, state: State) -> tuple[Ui, Request | None]:
    facts = shown_facts(state, ui)
    if not facts:
        return ui, None
    place = selected_of(facts, ui)
    moved = {
        UP: place - 1,
        "k": place - 1,
        DOWN: place + 1,
        "j": place + 1,
        PAGE_UP: place - PAGE,
        PAGE_DOWN: place + PAGE,
        HOME: 0,
        END: len(facts) - 1,
    }
    if key in moved:
        picked = facts[min(max(moved[key], 0), len(facts) - 1)].id
        ui = replace(ui, selected=picked)
        return ui, ShowFact(picked) if ui.page is Page.DETAIL else None
    if key == ENTER and ui.page is Page.FACTS:
        picked = facts[place].id
        return replace(ui, page=Page.DETAIL, selected=picked), ShowFact(picked)
    return ui, None
