"""Small random models of the families that updates reach, and small lessons for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from agent.learner.engine.cuda_graphs import Runner
from agent.learner.inference.encoding import Encoder
from agent.models.tiny import build_tiny

VOCABULARY, EOS = 257, 256
CPU = torch.device("cpu")
ENCODER = Encoder(build_tiny()[1], EOS, CPU)
RUNNER = Runner(CPU)
FAMILIES = ("gpt_neox", "llama", "gpt2")


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads cost a model this small more than they bring, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(family: str, seed: int = 0) -> Any:
    """A model in evaluation mode over `tiny`'s bytes; another one for another seed.

    All weights are drawn wide, biases included, so that predictions differ from place to place.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match family:
            case "gpt_neox":
                model: Any = build_tiny()[0]
            case "llama":
                model = LlamaForCausalLM(
                    LlamaConfig(
                        vocab_size=VOCABULARY,
                        hidden_size=32,
                        intermediate_size=48,
                        num_hidden_layers=2,
                        num_attention_heads=2,
                        num_key_value_heads=1,
                        max_position_embeddings=128,
                        attention_bias=True,
                        bos_token_id=EOS,
                        eos_token_id=EOS,
                    )
                )
            case _:
                model = GPT2LMHeadModel(
                    GPT2Config(
                        vocab_size=VOCABULARY,
                        n_positions=256,
                        n_embd=32,
                        n_layer=2,
                        n_head=4,
                        bos_token_id=EOS,
                        eos_token_id=EOS,
                    )
                )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name and "ln_" not in name:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval().requires_grad_(False)
