"""A model and its tokenizer from a folder, a GGUF file or the hub, once for all who train adapters on it; and, where
they cannot be read, why."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import huggingface_hub
import torch
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hub_logging

from agentlightning.errors import PolicyError, advice

HUB_SECONDS = 10.0
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
EXPECTED = "expected a Hugging Face folder, a folder with one .gguf file, or a model name on a hub in reach"


def read_pretrained(path: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer at ``path``: all of the weights, in ``dtype``.

    Raises `PolicyError` that says what is wrong with the folder, the file or the name.
    """
    name, options = _locate(path)
    if not options:
        _check_folder(Path(name)) if Path(name).is_dir() else _check_hub(name)
    try:
        with without_bars():
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            read: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True, **options)
    except Exception as error:
        raise PolicyError(f"{path} is no causal language model that can be loaded: {_reason(error)}") from error
    model, loaded = read
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise PolicyError(
            f"{path}: its weights lack {len(missing)} tensors that its config.json asks for ({missing[0]} …), which "
            "would be random; copy or download the model again"
        )
    return (_plain(model) if options else model), tokenizer


class FrozenBase:
    """A model whose weights nobody changes, and its tokenizer: what several policies train adapters on."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model.requires_grad_(False)
        self._tokenizer = tokenizer

    def view(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A copy of the model's structure, on the very same weights, and a tokenizer of its own."""
        weights = {id(weight): weight for weight in self._model.parameters()}
        return copy.deepcopy(self._model, weights), copy.deepcopy(self._tokenizer)


class _BaseKey(NamedTuple):
    """Two bases are one where all of this is the same. ``files`` are names, sizes and times of change, for a folder
    may be written anew."""

    path: str
    files: tuple[tuple[str, int, int], ...]
    dtype: torch.dtype
    device: torch.device


_bases: WeakValueDictionary[_BaseKey, FrozenBase] = WeakValueDictionary()
_reading = threading.Lock()


def frozen_base(path: str, dtype: torch.dtype, device: torch.device) -> FrozenBase:
    """The model at ``path``, frozen, in memory once: the one that somebody holds already, else it is read. It goes with
    the last who holds it.

    Raises `PolicyError` as `read_pretrained` does.
    """
    key = _key_of(path, dtype, device)
    with _reading:
        base = _bases.get(key)
        if base is None:
            model, tokenizer = read_pretrained(path, dtype)
            base = _bases[key] = FrozenBase(model.to(device), tokenizer)  # type: ignore[arg-type]
        return base


def _key_of(path: str, dtype: torch.dtype, device: torch.device) -> _BaseKey:
    name, options = _locate(path)
    folder = Path(name)
    if not folder.is_dir():
        return _BaseKey(name, (), dtype, device)
    files = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    stamps = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    return _BaseKey(str(folder.resolve() / options.get("gguf_file", "")), stamps, dtype, device)


def convert(source: str | Path, target: str | Path) -> Path:
    """Writes a model, a GGUF file say, as a plain Hugging Face folder in float32, to load it fast from then on.

    Raises `PolicyError` where ``source`` is no model.
    """
    model, tokenizer = read_pretrained(str(source), torch.float32)
    target = Path(target)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _reason(error: Exception) -> str:
    known = advice(error)
    if known is not None:
        return known
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if "couldn't find them in the cached files" in first or "offline mode" in first:
        return (
            "it is not in the cache of the hub's models, and the hub cannot be reached; check the name and the network"
        )
    if isinstance(error, SafetensorError):
        return f"its weights are damaged or cut off ({first}); copy or download it again"
    if "ignore_mismatched_sizes" in first:
        return "its weights have other shapes than its config.json says; they are of different models"
    return f"{first} ({EXPECTED})"


def _check_folder(folder: Path) -> None:
    """Says what a folder lacks, where the libraries speak of something else."""
    if not (folder / "config.json").exists():
        raise PolicyError(f"{folder} is no model: there is no config.json in it, and no .gguf file ({EXPECTED})")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise PolicyError(
            f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES[:2])} …): copy the tokenizer's files of the "
            "model that it was trained from into it"
        )


def _check_hub(name: str) -> None:
    """Asks the hub once for a model that is not in the cache: the libraries would try for a minute."""
    there_is = f"there is no folder {name} here, and"
    try:
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str) or huggingface_hub.constants.HF_HUB_OFFLINE:
            return
        huggingface_hub.HfApi().model_info(name, timeout=HUB_SECONDS)
    except HFValidationError as error:
        raise PolicyError(f"{there_is} it is no name that the hub could know: check model.path ({EXPECTED})") from error
    except RepositoryNotFoundError as error:
        raise PolicyError(
            f"{there_is} no model of that name on the hub, or none that you may read: check model.path, or log in "
            "with `hf auth login`"
        ) from error
    except Exception as error:
        raise PolicyError(
            f"{there_is} the hub cannot be asked for it ({type(error).__name__}: {error}): check model.path and the "
            "network, or give the path of a folder"
        ) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """The run's own display is the only one on the terminal."""
    was = hub_logging.is_progress_bar_enabled()
    hub_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was:
            hub_logging.enable_progress_bar()


def is_plain(path: str) -> bool:
    """Whether a path is a folder or a hub name that others load as it is; a GGUF file is not."""
    return not _locate(path)[1]


def _locate(path: str) -> tuple[str, dict[str, Any]]:
    location = Path(path).expanduser()
    if location.is_file():
        if location.suffix != ".gguf":
            raise PolicyError(f"{path} is a file: expected a folder, a hub name or a .gguf file")
        return str(location.parent), {"gguf_file": location.name}
    if location.is_dir():
        files = sorted(location.glob("*.gguf"))
        if (location / "config.json").exists() or not files:
            return str(location), {}
        if len(files) > 1:
            raise PolicyError(f"{path} holds {len(files)} .gguf files: name one of them")
        return str(location), {"gguf_file": files[0].name}
    if location.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1 or location.suffix == ".gguf":
        raise PolicyError(f"no folder or file at {path}: model.path names the model to train")
    return path, {}


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """A model read from GGUF refuses to be saved, as quantized; its weights are not any more."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    kind: Any = type(model)
    fresh: PreTrainedModel = kind(config).to(dtype=model.dtype)
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    return fresh
