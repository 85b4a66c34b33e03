"""Colors of the states of facts, the same on every screen."""

from __future__ import annotations

from memory_store.vocabulary import FactState

STATE_STYLES = {
    FactState.LEARNED: "green",
    FactState.KNOWN: "green",
    FactState.RESISTED: "red",
    FactState.QUARANTINED: "red",
    FactState.SUPERSEDED: "dim",
    FactState.FORGOTTEN: "dim",
}
