"""Conversion of a quantized model (GGUF) into an fp32 checkpoint with its tokenizer.

torch and transformers are imported inside the functions: the catalog imports this module.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.models.progress import Progress, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def dequantize(gguf: Path, target: Path, progress: Progress) -> None:
    """Writes the GGUF model as a fp32 safetensors checkpoint with its tokenizer."""
    progress("dequantize", 0, None)  # importing torch is a part of the wait
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), _tensors_counted(progress):
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # The weights are plain fp32 now; left in, these would have them saved and loaded as GGUF.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        progress("save", 0, None)
        model.save_pretrained(target)
        _read_tokenizer(gguf).save_pretrained(target)


def _read_tokenizer(gguf: Path) -> "PreTrainedTokenizerFast":
    """Builds SmolLM's tokenizer, a byte-level BPE that splits numbers into digits, from the GGUF.

    transformers converts it too, but differently from release to release (one ends answers with
    the wrong token), and learning can be replayed only on the same tokens.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields: Any = GGUFReader(gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL
    ]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in control]
    )
    named = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for role, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items()
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named
    )


@contextmanager
def _tensors_counted(progress: Progress) -> Iterator[None]:
    """Has transformers' GGUF reader report to us instead of drawing a bar of its own."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        listed = list(tensors)
        for number, tensor in enumerate(listed):
            progress("dequantize", number, len(listed))
            yield tensor

    original = vars(reader).get("tqdm")
    vars(reader)["tqdm"] = counted
    try:
        yield
    finally:
        vars(reader)["tqdm"] = original
