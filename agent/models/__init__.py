"""Which models there are, their files and tokenizers, and how one is loaded."""
