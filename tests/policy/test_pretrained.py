"""A model that cannot be read: one line that says what is wrong with it, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from agentlightning.errors import PolicyError
from agentlightning_policy.pretrained import read_pretrained

Damage = Callable[[Path], object]


def remove(*patterns: str) -> Damage:
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def lose_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def halve_the_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": config["hidden_size"] // 2, "num_attention_heads": config["num_attention_heads"] // 2}
    (folder / "config.json").write_text(json.dumps(config))


DAMAGED: dict[str, tuple[Damage, str]] = {
    "weights cut off": (truncate, "its weights are damaged or cut off"),
    "weights empty": (write("model.safetensors", b""), "its weights are damaged or cut off"),
    "weights that are none": (write("model.safetensors", b"\xff" * 1000), "its weights are damaged or cut off"),
    "weights of a part": (lose_a_layer, "its weights lack 3 tensors that its config.json asks for"),
    "weights of another model": (halve_the_width, "its weights have other shapes than its config.json says"),
    "no weights": (remove("*.safetensors"), "no file named model.safetensors"),
    "no tokenizer": (remove("tokenizer*"), "holds no tokenizer"),
    "no config": (remove("config.json"), "is no model: there is no config.json in it"),
    "config cut off": (write("config.json", b'{"model_type":'), "not a valid JSON file"),
    "tokenizer cut off": (
        write("tokenizer.json", b'{"version": "1.0", '),
        "no causal language model that can be loaded",
    ),
    "nothing": (remove("*"), "is no model: there is no config.json in it"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_wrong_with_a_folder_is_said_in_a_line(
    tiny_model: Path, tmp_path: Path, damage: Damage, says: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    damage(folder)
    with pytest.raises(PolicyError) as error:
        read_pretrained(str(folder), torch.float32)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_that_is_nowhere_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError, match="no name that the hub could know"):
        read_pretrained("a model", torch.float32)


@pytest.mark.parametrize("error", [OSError("Name or service not known"), TimeoutError("timed out"), RuntimeError("x")])
def test_without_a_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked = []

    def unreachable(self: object, name: str, **options: object) -> None:
        asked.append(name)
        raise error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(PolicyError, match=r"the hub cannot be asked for it .*check model.path and the network"):
        read_pretrained("nobody/nothing-here", torch.float32)
    assert asked == ["nobody/nothing-here"]
