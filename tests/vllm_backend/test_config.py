"""What a config says of vLLM, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from agentlightning.config import decode_section
from agentlightning.errors import ConfigError
from agentlightning_grpo.algorithm import GRPO
from agentlightning_vllm.config import StartConfig, VllmConfig, VllmOptions
from agentlightning_vllm.process import VllmProcess, processes


def test_an_algorithm_takes_the_backends_keys() -> None:
    section = {"backend": "vllm", "model": {"path": "m"}, "vllm": {"start": {"gpus": ["0", "1"]}}}
    algorithm = GRPO.from_section(section)
    assert isinstance(algorithm.backend_config, VllmConfig)
    assert algorithm.backend_config.vllm.start == StartConfig(gpus=["0", "1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"urls": ["http://a:1"], "folder": "f", "start": {}}, "start or urls, not both"),
        ({"urls": ["http://a:1"]}, "expected folder beside urls"),
        ({"folder": "f"}, "folder and api_key_env are for urls"),
        ({"api_key_env": "KEY"}, "folder and api_key_env are for urls"),
        ({"urls": ["a:1"], "folder": "f"}, "expected urls like http://host:8000, got 'a:1'"),
        ({"start": {"gpus": ["0", "1"], "replicas": 3}}, r"as many replicas as gpus \(2\), got 3"),
        ({"start": {"replicas": 0}}, "replicas"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode_section(options, VllmOptions, at="algorithm.vllm")


def test_each_replica_is_started_with_its_own_device_and_the_policys_options(
    vllm_python: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []
    init = VllmProcess.__init__
    monkeypatch.setattr(VllmProcess, "__init__", lambda self, *args: (made.append(args), init(self, *args))[1])
    start = StartConfig(python=vllm_python, gpus=["0", "2,3"], args=["--seed", "1"], environment={"A": "b"})
    found = processes(start, model="m", name="p", max_model_len=64, lora_rank=12, folder=tmp_path)
    assert [args[2] for args in made] == [
        {"A": "b", "CUDA_VISIBLE_DEVICES": "0"},
        {"A": "b", "CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    line = " ".join(made[0][1])
    for part in ("--model m", "--served-model-name p", "--max-model-len 64", "--max-lora-rank 16", "--seed 1"):
        assert part in line
    assert len({process.port for process in found}) == 2
