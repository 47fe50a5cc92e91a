"""What a config file says of the backend ``vllm``. Imports no torch."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentlightning.config import PositiveInt, Seconds
from agentlightning_policy.config import ServingConfig, TrainerConfig


class StartConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The vLLM servers that the run starts, on loopback, and ends.

    ``replicas`` servers; with ``gpus`` one for each entry, which is its ``CUDA_VISIBLE_DEVICES``. ``python`` is that of
    an environment in which vLLM is installed, by default the one that trains. ``dtype`` is that of the served weights.
    ``args`` are added to vLLM's command line, ``environment`` to its environment. Each must answer within ``seconds``.
    """

    replicas: PositiveInt = 1
    gpus: list[str] = []
    python: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    args: list[str] = []
    environment: dict[str, str] = {}
    seconds: Seconds = 600.0

    def __post_init__(self) -> None:
        if self.gpus and self.replicas not in (1, len(self.gpus)):
            raise ValueError(f"expected as many replicas as gpus ({len(self.gpus)}), got {self.replicas}")

    @property
    def devices(self) -> list[str | None]:
        """``CUDA_VISIBLE_DEVICES`` of each replica; None where it is left as it is."""
        return [*self.gpus] if self.gpus else [None] * self.replicas


class VllmOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where vLLM runs: servers that the run starts (``start``, the default), or that are there already.

    ``urls`` are those, each ``http://host:port``; ``api_key_env`` names the variable that holds their key. ``folder``
    is one that this process writes and they read under the same path: where weights are handed over. Without LoRA it is
    the folder that they were started with (``--model``).
    """

    start: StartConfig | None = None
    urls: list[str] = []
    api_key_env: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.urls:
            raise ValueError("expected start or urls, not both")
        if self.urls and self.folder is None:
            raise ValueError("expected folder beside urls: where weights are handed over")
        if not self.urls and (self.folder is not None or self.api_key_env is not None):
            raise ValueError("folder and api_key_env are for urls; leave them out where vLLM is started")
        odd = [url for url in self.urls if not url.startswith(("http://", "https://"))]
        if odd:
            raise ValueError(f"expected urls like http://host:8000, got {odd[0]!r}")


class VllmConfig(TrainerConfig, kw_only=True, forbid_unknown_fields=True):
    """What the backend ``vllm`` can be told: ``engine`` is the gateway before the replicas, ``vllm`` the replicas."""

    engine: ServingConfig = msgspec.field(default_factory=ServingConfig)
    vllm: VllmOptions = msgspec.field(default_factory=VllmOptions)
