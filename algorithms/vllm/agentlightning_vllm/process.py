"""A vLLM server that was started here, and ends with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from agentlightning.errors import PolicyError
from agentlightning.redaction import redact
from agentlightning_vllm.config import StartConfig

LAUNCHER = Path(__file__).with_name("launcher.py")
GRACE_SECONDS = 15.0
TAIL = 2000
"""Characters of a log that an error quotes."""
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_SERVER_DEV_MODE": "1",  # reload_weights and reset_prefix_cache: vLLM then listens on loopback alone
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmProcess:
    """``python -m vllm.entrypoints.openai.api_server`` with a log file, in a process group of its own.

    It may be started again after it has ended; its port stays the same. ``environment`` is added to this one's.
    """

    def __init__(self, python: str, args: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.port = _free_port()
        self._command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        self._command += ["--port", str(self.port), *args]
        self._environment = {**os.environ, **ENVIRONMENT, **environment}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Begins to start it. Whether it answers is another question."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(LAUNCHER),
                *self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    async def wait(self) -> None:
        """Until it ends."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Ends it and whatever it has started. Safe to call twice."""
        if self._process is None:
            return
        with contextlib.suppress(TimeoutError):
            self._signal(signal.SIGTERM)
            await asyncio.wait_for(self._process.wait(), GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def tail(self) -> str:
        """The end of its log, without secrets."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return redact(text[-TAIL:]).strip()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def processes(
    config: StartConfig, *, model: str, name: str, max_model_len: int, lora_rank: int | None, folder: Path
) -> list[VllmProcess]:
    """Those that the config asks for, not yet started; they log to files in ``folder``.

    ``model`` is the folder of the weights or their hub name, ``name`` what requests call it. Raises `PolicyError` where
    vLLM is not installed.
    """
    python = config.python or sys.executable
    check_installed(python)
    args = ["--model", model, "--served-model-name", name, "--dtype", config.dtype]
    args += ["--max-model-len", str(max_model_len), "--generation-config", "vllm"]
    args += ["--logprobs-mode", "processed_logprobs"]
    if lora_rank is not None:  # of the present version, and of the one that earlier requests began with
        args += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", str(_served_rank(lora_rank))]
    if not torch.cuda.is_available():
        # vLLM 0.32 ends on a CPU where it reads a prompt in parts and the request has a seed
        # (gpu_model_runner: "CPU Generator does not use offset").
        args += ["--no-enable-chunked-prefill"]
    return [
        VllmProcess(
            python,
            [*args, *config.args],
            config.environment if device is None else {**config.environment, "CUDA_VISIBLE_DEVICES": device},
            folder / f"replica{number}.log",
        )
        for number, device in enumerate(config.devices)
    ]


def check_installed(python: str) -> None:
    """Raises `PolicyError` where a Python has no vLLM."""
    look = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('vllm') else 3)"
    try:
        found = subprocess.run([python, "-c", look], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PolicyError(f"algorithm.vllm.start.python: {python} cannot be run: {error}") from error
    if not found:
        raise PolicyError(
            f"vLLM is not installed for {python}: `{python} -m pip install vllm`, or name the Python of an environment "
            "that has it as algorithm.vllm.start.python, or give the servers that there are as algorithm.vllm.urls"
        )


def _served_rank(rank: int) -> int:
    """vLLM takes certain bounds on the rank."""
    return next((bound for bound in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= bound), rank)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
