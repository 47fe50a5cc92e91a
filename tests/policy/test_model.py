"""The policy: loading, saving, versions, checkpoints, the reference."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentlightning.errors import PolicyError
from agentlightning_policy.model import LoraConfig, ModelConfig, PolicyModel, convert

IDS = torch.tensor([[5, 9, 33, 70, 41]])
LORA = LoraConfig(rank=4, alpha=8)


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(IDS).logits


def train_a_little(policy: PolicyModel) -> None:
    with policy.updating(), torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_saved_policy_is_a_plain_folder_with_the_same_outputs(
    tiny_model: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora))
    before = logits(policy.module)
    train_a_little(policy)
    folder = policy.save(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(logits(plain), before, atol=1e-3)
    torch.testing.assert_close(logits(plain), logits(policy.module), atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(folder).chat_template == policy.tokenizer.chat_template
    assert not (folder / "adapter_config.json").exists()


def test_with_lora_only_the_adapters_are_trained(tiny_model: Path) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=LORA))
    assert policy.state().keys()
    assert all("lora_" in name for name in policy.state())
    assert len(policy.parameters()) == len(policy.state())


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_checkpoint_brings_weights_and_version_back(
    tiny_model: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora))
    train_a_little(policy)
    expected = logits(policy.module)
    save_file(policy.state(), tmp_path / "state.safetensors")
    fresh = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora))
    fresh.load_state(load_file(tmp_path / "state.safetensors"), version=7)
    torch.testing.assert_close(logits(fresh.module), expected, atol=0, rtol=0)
    assert fresh.version == 7


def test_a_checkpoint_of_another_model_is_refused(tiny_model: Path) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    with_lora = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=LORA))
    with pytest.raises(PolicyError, match="another model"):
        policy.load_state(with_lora.state())


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("late", [False, True], ids=["before training", "after training"])
def test_the_reference_stays_as_it_was_loaded(tiny_model: Path, lora: LoraConfig | None, late: bool) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora))
    expected = logits(policy.module)
    if not late:
        with policy.frozen_reference():
            pass
    train_a_little(policy)
    with policy.frozen_reference() as reference:
        torch.testing.assert_close(logits(reference), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(logits(policy.module), expected, atol=1e-3)


def test_an_update_waits_for_readers_and_goes_before_new_ones(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    order: list[str] = []
    waits = threading.Event()
    wait_for = policy._turn.wait_for

    def update() -> None:
        with policy.updating():
            order.append("update")

    def read() -> None:
        with policy.reading() as version:
            order.append(f"read version {version}")

    def noted(ready: Callable[[], bool]) -> bool:
        waits.set()
        return wait_for(ready)

    updater, reader = threading.Thread(target=update), threading.Thread(target=read)
    with policy.reading():
        monkeypatch.setattr(policy._turn, "wait_for", noted)
        updater.start()
        waits.wait()
        reader.start()
        with policy._turn:
            order.append("first reader done")
    updater.join()
    reader.join()
    assert order == ["first reader done", "update", "read version 1"]


def test_a_template_comes_from_a_file_or_inline(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text("{{ messages[0].content }}")
    for given in (str(tmp_path / "template.jinja"), "{{ messages[0].content }}"):
        policy = PolicyModel.load(ModelConfig(path=str(tiny_model), chat_template=given))
        assert policy.tokenizer.chat_template == "{{ messages[0].content }}"


def test_what_cannot_be_loaded_is_named(tiny_model: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    cases = {
        "no folder or file at /nowhere/model": ModelConfig(path="/nowhere/model"),
        "empty is no model: there is no config.json in it": ModelConfig(path=str(tmp_path / "empty")),
        "is a file": ModelConfig(path=str(tmp_path / "text.txt")),
        "has no chat template": ModelConfig(path=str(bare)),
        "missing.jinja cannot be read: .*one of these by name: hermes-tools": ModelConfig(
            path=str(tiny_model), chat_template="missing.jinja"
        ),
        "model.device: nonsense": ModelConfig(path=str(tiny_model), device="nonsense"),
        "model.lora does not fit": ModelConfig(path=str(tiny_model), lora=LoraConfig(targets=["no_such_module"])),
    }
    for message, config in cases.items():
        with pytest.raises(PolicyError, match=message):
            PolicyModel.load(config)


def test_convert_writes_a_plain_folder(tiny_model: Path, tmp_path: Path) -> None:
    folder = convert(tiny_model, tmp_path / "plain")
    policy = PolicyModel.load(ModelConfig(path=str(folder)))
    original = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    torch.testing.assert_close(logits(policy.module), logits(original.module), atol=0, rtol=0)
