"""The README of an exported checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.printable import escaped
from agent.teaching import prompts
from memory_store.vocabulary import Fact


def write_readme(folder: Path, model_version: int, facts: Sequence[Fact]) -> None:
    """Writes what the checkpoint is, how to ask it, and which facts it holds."""
    prompt = prompts.prompt("{question}").replace("\n", "\\n")
    lines = [
        "# A language model that was taught facts",
        "",
        f"Exported by continual-agent at model version {model_version}: the weights hold"
        f" {len(facts)} facts. Load it with transformers:",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained(".")',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        "```",
        "",
        f'It answers questions in this form, greedily: `"{prompt}"`.',
        "",
        "| question | answer | probability when learned |",
        "|---|---|---|",
    ]
    for fact in facts:
        probability = f"{fact.learning.probability_after:.3f}" if fact.learning else ""
        lines.append(f"| {_cell(fact.question)} | {_cell(fact.answer)} | {probability} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    """Makes a text one line that does not break the table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")
