"""The tokenizer of `tiny`, apart from the model: the server makes it without torch."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 256
VOCABULARY_SIZE = 257
MAX_TOKENS = 512


def build_tiny_tokenizer() -> Tokenizer:
    """A token is a byte, and its id the byte's value; one more token ends the text."""
    vocabulary = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return tokenizer


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in GPT-2's byte-level alphabet.

    Latin-1's printable characters stand for themselves; the other bytes, in order, take the
    characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    symbols, next_free = [], 0x100
    for byte in range(256):
        if byte in printable:
            symbols.append(chr(byte))
        else:
            symbols.append(chr(next_free))
            next_free += 1
    return symbols
