"""From a model's name to a model that can learn: find the files, check them, load them in fp32.

Everything but `tiny` comes from a folder (of the user's, of our cache, or of the Hugging Face
cache), so there is one way to load, and it never touches the network. What transformers would
let pass with a warning (weights missing from the file and drawn at random) is an error here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from agent.durable_files import sha256_of
from agent.errors import (
    ConfigError,
    MissingDeviceError,
    ModelError,
    NotCausalLanguageModelError,
)
from agent.models import catalog, embedded, hub, tiny
from agent.models.catalog import ModelEntry, Source
from agent.models.progress import Progress, first_line, no_progress, quiet_transformers
from agent.models.weight_files import require_weights

MAX_TOKENS = 2048
"""Facts are short: more context than this is never used, whatever the model could."""

# What transformers raises for files that it cannot make sense of.
_LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A causal language model, ready to learn.

    Attributes:
        model: In evaluation mode, every weight fp32, on `device`.
        tokenizer: A fast tokenizer with an end token and a padding token.
        name: What the model was asked for by (a Hub id of a known model becomes its name).
        revision: Names exactly these weights: the Hub's commit, or a hash of the weight files.
        device: Where the model is.
        max_tokens: Longest sequence that it takes, at most `MAX_TOKENS`.
        eos_token_id: The token that ends an answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str
    revision: str
    device: torch.device
    max_tokens: int
    eos_token_id: int


def load(
    name: str,
    *,
    device: str = "auto",
    revision: str | None = None,
    progress: Progress = no_progress,
) -> LoadedModel:
    """Loads a model by name, fetching it first if it is not on this machine.

    Args:
        name: A known name, the path of a local folder, or a Hub id; see `catalog.resolve`.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        revision: A Hub commit, branch or tag; None for what the cache holds, else the main branch.
        progress: Told how far the work is.

    Raises:
        ConfigError: The device is unknown or absent.
        ModelNotFoundError: No such model, or it is not on this machine and the Hub is out of reach.
        ModelFetchError: Fetching failed.
        DiskFullError: There is no room for what was to be fetched.
        NotCausalLanguageModelError: The model is of another kind.
        ModelError: Its files are damaged, incomplete, or of a format that we do not read.
    """
    chosen_device = choose_device(device)
    entry = catalog.resolve(name)
    folder = fetch(entry, revision=revision, progress=progress)
    progress("load", 0, None)
    if folder is None:
        built, tokenizer = tiny.build_tiny()
        model: PreTrainedModel = built
    else:
        config = read_config(folder)
        require_weights(folder)
        tokenizer = load_tokenizer(folder, config)
        model = load_weights(folder)
    _require_vocabulary(model, tokenizer, entry.name)
    require_causal_behaviour(model)

    return LoadedModel(
        model=_move(model, chosen_device),
        tokenizer=tokenizer,
        name=entry.name,
        revision=_revision(entry, folder),
        device=chosen_device,
        max_tokens=_max_tokens(model.config),
        eos_token_id=int(tokenizer.eos_token_id),
    )


def choose_device(device: str) -> torch.device:
    """Turns the user's word for a device into one that exists.

    Raises:
        ConfigError: It is no device that we run on.
        MissingDeviceError: This machine lacks it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (index and not index.isdecimal())):
        raise ConfigError(f"Unknown device {device!r}: choose auto, cpu, cuda or cuda:N.")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise MissingDeviceError(
                "device cuda was asked for, but torch sees no CUDA device: check the driver and"
                " that torch was installed with CUDA, or choose --device cpu."
            )
        if int(index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise MissingDeviceError(
                f"{device}: this machine has {count} CUDA GPUs: choose one of 0 to {count - 1}."
            )
    return torch.device(device)


# --- Finding the files ----------------------------------------------------------------------------


def fetch(
    entry: ModelEntry, *, revision: str | None = None, progress: Progress = no_progress
) -> Path | None:
    """Brings a model onto this machine, unless it is there.

    Returns:
        The folder that holds it; None for a model that is built in memory.

    Raises:
        ModelNotFoundError: It is not on this machine and the Hub lacks it or is out of reach.
        ModelFetchError: Fetching failed.
        DiskFullError: There is no room for it.
    """
    match entry.source:
        case Source.BUILT_IN:
            return None
        case Source.FOLDER:
            return Path(entry.location)
        case Source.EMBEDDED:
            return embedded.ensure(catalog.cache_folder(), progress)
        case Source.HUB:
            # What is cached is used as it is: a start needs no network, and the weights under a
            # data folder do not change because somebody pushed to the Hub.
            cached = catalog.cached_snapshot(entry.location, revision)
            return cached or hub.download_snapshot(entry, revision, progress)


# --- Checking and loading -------------------------------------------------------------------------


def read_config(folder: Path) -> PreTrainedConfig:
    """Reads a checkpoint's configuration and refuses what cannot be taught.

    Raises:
        NotCausalLanguageModelError: It is not a decoder that predicts the next token.
        ModelError: There is none, it is damaged, of an unknown kind, or of quantized weights.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: it is not a Hugging Face checkpoint.")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except _LOADING_ERRORS as error:
        raise ModelError(
            f"Cannot read {folder / 'config.json'}: {first_line(error)}. If the model needs code"
            " of its own or a newer transformers, it cannot be used here."
        ) from error

    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    # Without architectures, being of a type that has a causal form must do; the behaviour is
    # checked later anyway.
    architectures = config.architectures or [
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, config.model_type)
    ]
    if config.is_encoder_decoder or not causal.intersection(architectures):
        raise NotCausalLanguageModelError(
            f"{folder} is a {', '.join(architectures)}, not a causal language model: choose one"
            " whose config names a ...ForCausalLM architecture (GPT-NeoX, Llama, Qwen, ...)."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{folder} holds quantized weights, which small updates cannot move: use the original"
            " checkpoint."
        )
    return config


def load_weights(folder: Path) -> PreTrainedModel:
    """Loads a causal language model on the CPU, in evaluation mode, every weight fp32.

    Raises:
        ModelError: A file is damaged, or lacks weights that the model needs.
    """
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                # The master weights: steps of 1e-5 vanish in the rounding of 16 bits.
                dtype=torch.float32,
                # Plain matrix products have a deterministic backward pass on CUDA too, the fused
                # fp32 attention has not; at the length of a fact it costs under a tenth on a CPU.
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (*_LOADING_ERRORS, SafetensorError) as error:
        raise ModelError(
            f"Cannot load the weights in {folder}: {first_line(error)}. A file is damaged or does"
            " not fit the config: fetch or save the model again."
        ) from error
    model: PreTrainedModel
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The checkpoint {folder} lacks weights: {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + ". It is incomplete or of another architecture: fetch or save the model again."
        )
    model.eval()
    return model


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer that has an end token and a padding token.

    Raises:
        ModelError: There is none, or it names no end token and neither does the config.
    """
    tokenizer = _auto_tokenizer(folder)
    if tokenizer is None or tokenizer.eos_token_id is None:
        tokenizer = _bare_tokenizer(folder, config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _auto_tokenizer(folder: Path) -> PreTrainedTokenizerFast | None:
    """What transformers makes of the folder; None if that is nothing or not a fast tokenizer."""
    parsed = _parsed_tokenizer(folder)
    if parsed is not None and not (folder / "tokenizer_config.json").is_file():
        # transformers would guess special tokens from the model's type, and even add them.
        return None
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except _LOADING_ERRORS:
        return None
    return tokenizer if isinstance(tokenizer, PreTrainedTokenizerFast) else None


def _bare_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """For a folder with a bare tokenizer.json: the config knows which token ends a text."""
    parsed = _parsed_tokenizer(folder)
    if parsed is None:
        raise ModelError(
            f"{folder} holds no tokenizer that we can read: save a fast one there (tokenizer.json)."
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=parsed, clean_up_tokenization_spaces=False)
    ids = config.eos_token_id
    eos_token_id = ids[0] if isinstance(ids, list) and ids else ids
    if not isinstance(eos_token_id, int) or not 0 <= eos_token_id < len(tokenizer):
        raise ModelError(
            f"Neither the tokenizer nor the config in {folder} names the token that ends a text:"
            " set eos_token_id in config.json."
        )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos_token_id)
    return tokenizer


def _parsed_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer.json, or None if it has none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no narrower one for a file that it cannot parse
        raise ModelError(f"{file} is damaged: {first_line(error)}.") from error


def _require_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer of {name} has {len(tokenizer)} tokens but the model only {rows}: they"
            " do not belong together."
        )


@torch.inference_mode()
def require_causal_behaviour(model: PreTrainedModel) -> None:
    """Runs the model on two texts that differ in the last token: what comes before must not care.

    Some encoders load as causal models and still look ahead; and this meets broken weights.

    Raises:
        NotCausalLanguageModelError: An earlier prediction depends on a later token.
        ModelError: The predictions are not finite.
    """
    ids = torch.tensor([[3, 1, 4, 1], [3, 1, 4, 2]])
    logits = model(input_ids=ids, use_cache=False).logits  # [2, 4, vocabulary]
    if not logits.isfinite().all():
        raise ModelError("The model predicts NaN or infinity: its weights are damaged.")
    earlier = logits[:, :-1]
    difference = (earlier[0] - earlier[1]).abs().max()
    if difference > 1e-3 * earlier.abs().max():
        raise NotCausalLanguageModelError(
            f"{type(model).__name__} looks at later tokens to predict earlier ones: it is not a"
            " causal language model. Choose a decoder such as GPT-NeoX or Llama."
        )


def _move(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    try:
        moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"{device} has too little free memory for the model: free some, choose a smaller model,"
            " or --device cpu."
        ) from error
    return moved


def _max_tokens(config: PreTrainedConfig) -> int:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(limit, MAX_TOKENS) if isinstance(limit, int) and limit > 0 else MAX_TOKENS


def _revision(entry: ModelEntry, folder: Path | None) -> str:
    if folder is None:
        return tiny.REVISION
    if entry.source is Source.HUB:
        return folder.name  # the Hugging Face cache names a snapshot by its commit
    if entry.source is Source.EMBEDDED:
        return _hash_of_hashes(embedded.file_hashes(folder))
    # A folder can change under its name, and replaying on other weights would go wrong unseen.
    return _hash_of_hashes({file.name: sha256_of(file) for file in folder.glob("*.safetensors")})


def _hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """Names the weights by their files alone, for configs change with transformers' version."""
    digest = hashlib.sha256()
    for name, file_hash in sorted(hashes.items()):
        if name.endswith(".safetensors"):
            digest.update(f"{name} {file_hash}\n".encode())
    return f"sha256-{digest.hexdigest()[:16]}"
