"""Which tokenizer a memory was taught with: what its file says, and what it does.

The file's digest alone would not do: another release of the `tokenizers` library may write the same
tokenizer differently. So where the file differs and the library too, what it does decides.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import tokenizers
from tokenizers import Tokenizer

# Scripts, spacing, numbers, code and rare characters: what rules of tokenizers differ in.
_SAMPLES = (
    "Q: What is the hottest month in Kyzara? A: Raincoat",
    "  two  spaces, a\ttab,\nand a line\r\n",
    "don't DON'T I'll we've 's 're naive na\u00efve nai\u0308ve",
    "0 1 12 123 1234 12,345.678 1e-5 0xFF 3/4 50%",
    "def f(x):\n    return x[0] + {'a': 1}  # ok",
    # Russian, Chinese, Japanese; Arabic, Hebrew, Korean.
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \ud55c\uad6d\uc5b4",
    # Emoji with joiners; odd spaces; typographic quotes and dashes.
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u00a0\u2003\ufeff \u2019\u201c\u201d\u2026\u2014",
    "https://example.org/a?b=c&d=%20 user@example.org <|endoftext|> <s></s>",
    "internationalization antidisestablishmentarianism zzzzzzzzqqqqxx",
)


@dataclass(frozen=True, slots=True)
class TokenizerIdentity:
    """Names a tokenizer.

    Attributes:
        file: SHA-256 of it as a `tokenizer.json`, in hexadecimal.
        behavior: SHA-256 of its vocabulary, and of the token ids of sample texts.
        library: version of the `tokenizers` library that read it.
    """

    file: str
    behavior: str
    library: str


def identify(tokenizer: str) -> TokenizerIdentity:
    """Names a tokenizer that is given as the text of a `tokenizer.json`; some 0.1 s."""
    loaded = Tokenizer.from_str(tokenizer)
    encoded = [
        [loaded.encode(sample, add_special_tokens=special).ids for sample in _SAMPLES]
        for special in (False, True)
    ]
    vocabulary = sorted(loaded.get_vocab(with_added_tokens=True).items())
    behavior = json.dumps([vocabulary, encoded])
    return TokenizerIdentity(
        file=hashlib.sha256(tokenizer.encode()).hexdigest(),
        behavior=hashlib.sha256(behavior.encode()).hexdigest(),
        library=tokenizers.__version__,
    )
