"""The backend ``vllm``: weights trained in this process by AdamW, and served by vLLM replicas behind a gateway here."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.loss import LossConfig
from agentlightning.records import Policy
from agentlightning.redaction import remember
from agentlightning.sampler import LogprobsMode
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.endpoint import Endpoint
from agentlightning_gateway.gateway import Gateway
from agentlightning_policy.compute import compute_async
from agentlightning_policy.pretrained import is_plain
from agentlightning_policy.sampler.info import model_info
from agentlightning_policy.trainer import UNCUT, TorchTrainer
from agentlightning_vllm.config import StartConfig, VllmConfig
from agentlightning_vllm.control import ReplicaControl
from agentlightning_vllm.probe import probe_ids, probe_row
from agentlightning_vllm.process import VllmProcess, processes
from agentlightning_vllm.publisher import Publisher, write_model
from agentlightning_vllm.recovery import Recovery, answers
from agentlightning_vllm.replicas import Replica, ReplicaSet
from agentlightning_vllm.sampler import ReplicaSampler

logger = logging.getLogger(__name__)


class VllmBackend(TorchTrainer):
    """Raises `PolicyError` where the model cannot be loaded, or no replica serves it."""

    Config = VllmConfig
    config: VllmConfig

    gateway: Gateway | None = None
    """What agents talk to; None before `start` and after `aclose`."""
    replicas: ReplicaSet | None = None
    """What is behind it."""

    _recovery: Recovery | None = None
    _processes: Sequence[VllmProcess] = ()
    _temporary: tempfile.TemporaryDirectory[str] | None = None
    _warned = False

    async def serve(self) -> None:
        engine = self.config.engine
        engine = msgspec.structs.replace(engine, seed=engine.seed + self.seed, name=engine.name or self.name)
        info = model_info(self.policy, engine, logprobs="raw")
        start = None if self.config.vllm.urls else self.config.vllm.start or StartConfig()
        found = await self._started(start, info.context_length) if start is not None else self._given()
        recovery = self._recovery = Recovery(start_seconds=(start or StartConfig()).seconds)
        self.replicas = ReplicaSet(found, recovery.failed)
        await asyncio.gather(*(answers(replica, (start or StartConfig()).seconds) for replica in found))
        self._probe = probe_ids(self.policy.tokenizer, info.context_length)
        mode = await self._logprobs_mode(found)
        for replica in found:
            replica.endpoint.logprobs = mode
        self._publisher = Publisher(
            self.policy, self.replicas, name=await self._model_name(found), folder=self._folder, ids=self._probe
        )
        recovery.watch(self.replicas, self._publisher)
        info = msgspec.structs.replace(info, logprobs=mode)
        gateway = Gateway(ReplicaSampler(self.replicas, info), engine, tokenizer=self.policy.tokenizer)
        await gateway.start()
        self.gateway = gateway

    async def stop_serving(self) -> None:
        if self._recovery is not None:
            await self._recovery.aclose()
        if self.replicas is not None:
            self.replicas.close()
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            await gateway.stop()
        replicas, self.replicas = self.replicas, None
        for replica in replicas.replicas if replicas is not None else ():
            await replica.control.aclose()
        await asyncio.gather(*(process.stop() for process in self._processes))
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    async def publish(self) -> Policy:
        """Pushes the present weights to every replica, and checks that it serves them."""
        gateway = self.gateway
        if gateway is None:
            raise PolicyError(f"the policy {self.name} is not served: the backend has not been started")
        (probe,) = await self.logprobs([probe_row(self._probe, self.name)])
        published = self._publisher.published
        unchanged = published is not None and published.served.version == self.policy.version
        if published is None or not (unchanged and np.array_equal(probe, published.probe)):
            await self._publisher.publish(np.asarray(probe, np.float64))
        return Policy(
            name=self.name,
            version=self.policy.version,
            model=gateway.sampler.info.name,
            base_url=gateway.base_url,
            api_key_env=gateway.api_key_env,
            sampling=UNCUT,
        )

    async def update(
        self,
        groups: Sequence[Sequence[TrainingRow]],
        loss: LossConfig,
        *,
        step: int,
        epochs: int = 1,
        mini_batches: int = 1,
    ) -> dict[str, float]:
        if loss.sampler_correction == "none" and loss.kind != "cross_entropy" and not self._warned:
            self._warned = True
            logger.warning(
                "vLLM computes otherwise than the trainer, and algorithm.loss.sampler_correction is none: watch "
                "sampler_mismatch_mean in the log, or set it to token_truncate"
            )
        return await super().update(groups, loss, step=step, epochs=epochs, mini_batches=mini_batches)

    async def _started(self, start: StartConfig, context_length: int) -> list[Replica]:
        """The servers that the config asks for, on their way up, with their folder."""
        directory = self.directory
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="agentlightning-vllm-")
            directory = Path(self._temporary.name)
        root = (directory / "vllm" / self.name).absolute()
        self._folder = root / "weights"
        model, lora = self.config.model, self.config.model.lora
        served = self._folder
        if lora is not None:
            served = Path(model.path)
            if not is_plain(model.path):
                served = root / "base"
                await compute_async(write_model, self.policy, served)
        else:
            await compute_async(write_model, self.policy, served)
        self._processes = await asyncio.to_thread(
            processes,
            start,
            model=str(served),
            name=self.name,
            max_model_len=context_length,
            lora_rank=None if lora is None else lora.rank,
            folder=root,
        )
        for process in self._processes:
            await process.start()
        return [_replica(process.url, process=process) for process in self._processes]

    def _given(self) -> list[Replica]:
        options = self.config.vllm
        self._folder = Path(options.folder or "").expanduser().absolute()
        if self._folder == Path(self.config.model.path).expanduser().absolute():
            raise PolicyError(
                "algorithm.vllm.folder is that of algorithm.model.path, which would be overwritten: start vLLM from a "
                "copy of it, and name that"
            )
        key = None
        if options.api_key_env is not None:
            key = os.environ.get(options.api_key_env)
            if not key:
                raise PolicyError(f"algorithm.vllm.api_key_env: the variable {options.api_key_env} is not set; set it")
            remember(key)
        return [_replica(url, key=key) for url in options.urls]

    async def _model_name(self, replicas: Sequence[Replica]) -> str:
        """What requests call the weights that the replicas were started with."""
        if not self.config.vllm.urls or self.config.model.lora is not None:
            return self.name
        names = [(await replica.control.models())[0] for replica in replicas]
        if len(set(names)) > 1:
            raise PolicyError(f"the vLLM servers call their model by several names: {', '.join(sorted(set(names)))}")
        return names[0]

    async def _logprobs_mode(self, replicas: Sequence[Replica]) -> LogprobsMode:
        """What the log-probabilities of all of them are of. Raises `PolicyError` where they differ."""
        modes = {
            replica.url: await replica.control.logprobs_mode((await replica.control.models())[0], self._probe[:32])
            for replica in replicas
        }
        if len(set(modes.values())) > 1:
            raise PolicyError(f"the vLLM servers differ in --logprobs-mode: {modes}; start them alike")
        return next(iter(modes.values()))


def _replica(url: str, *, key: str | None = None, process: VllmProcess | None = None) -> Replica:
    url = url.rstrip("/").removesuffix("/v1")
    endpoint = Endpoint(f"{url}/v1", logprobs="raw", api_key=key)
    return Replica(url, endpoint, ReplicaControl(url, api_key=key), process)
