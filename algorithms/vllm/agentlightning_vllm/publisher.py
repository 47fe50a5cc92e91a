"""Each version of the weights, to every replica: handed over in a folder, loaded, and checked by a probe."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors.torch import load_file, save_file

from agentlightning.errors import PolicyError
from agentlightning_gateway.endpoint import UnreachableError
from agentlightning_policy.compute import compute_async
from agentlightning_policy.model import PolicyModel
from agentlightning_vllm.probe import fault, rms
from agentlightning_vllm.replicas import Replica, ReplicaSet, Served

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """A version of the weights as it is handed over. ``folder`` holds the adapter, or the model; ``probe`` is what the
    trainer gives for the probe with these weights, and ``probe_before`` with those that were published before."""

    served: Served
    folder: Path
    probe: np.ndarray
    probe_before: np.ndarray | None


class Publisher:
    """Hands the weights of ``policy`` over in ``folder``, which the replicas read under the same path.

    With LoRA each version is an adapter of its own name, beside those that running requests began with. Without,
    ``folder`` is the one that vLLM was started with, as the model ``name``: requests are held back while it is read.
    """

    def __init__(self, policy: PolicyModel, replicas: ReplicaSet, *, name: str, folder: Path, ids: np.ndarray) -> None:
        self._policy = policy
        self._replicas = replicas
        self._name = name
        self._folder = folder
        self._ids = ids
        self._is_lora = policy.config.lora is not None
        # a server that was there before may hold the adapters of other runs
        self._prefix = f"{name}-{secrets.token_hex(4)}-"
        self._count = 0
        self._changing = asyncio.Lock()
        self.published: Publication | None = None

    async def publish(self, probe: np.ndarray) -> None:
        """Pushes the present weights to every replica that answers; ``probe`` is what they give for the probe.

        One that does not serve them is out, with the reason; where all that there were are lost, the first that is back
        is waited for. Raises `PolicyError` where none is left.
        """
        async with self._changing:
            publication = await self._write(probe)
            async with nullcontext() if self._is_lora else self._replicas.paused():
                first = self.published is None
                ready = [one for one in self._replicas.replicas if first or one.out is None or not one.returns]
                errors = await asyncio.gather(*(self._push_or_put_out(replica, publication) for replica in ready))
                self.published = publication
                self._replicas.serve(publication.served)
                for replica, error in zip(ready, errors, strict=True):
                    if error is None:
                        self._replicas.put_in(replica)
            await self._forget_adapters()
        await self._replicas.someone_in_service()

    async def bring_back(self, replica: Replica) -> None:
        """Pushes what was published last to a replica that was out, and whose state nobody knows; it is in again.

        Raises `PolicyError` where it cannot be.
        """
        async with self._changing:
            if self.published is None:
                raise PolicyError(f"{replica.url}: {replica.out}")
            replica.before = None
            replica.adapters = {name for name in await replica.control.models() if name.startswith(self._prefix)}
            await self._push(replica, self.published)
            self._replicas.put_in(replica)

    async def _push_or_put_out(self, replica: Replica, publication: Publication) -> PolicyError | None:
        try:
            await self._push(replica, publication)
        except PolicyError as error:
            self._replicas.put_out(replica, str(error), returns=isinstance(error, UnreachableError))
            return error
        return None

    async def _push(self, replica: Replica, publication: Publication) -> None:
        model = publication.served.model
        if not self._is_lora:
            await replica.control.reload_weights()
        elif model not in replica.adapters:
            await replica.control.load_adapter(model, str(publication.folder))
            replica.adapters.add(model)
        given = await replica.control.prompt_logprobs(model, self._ids)
        wrong = fault(given, publication.probe, publication.probe_before, replica.before, replica.rounding)
        if wrong is not None:
            raise PolicyError(f"{replica.url} does not serve version {publication.served.version}: {wrong}")
        replica.before = given
        if replica.rounding is None:
            replica.rounding = rms(given - publication.probe)

    async def _write(self, probe: np.ndarray) -> Publication:
        """The present weights, in a folder."""
        self._count += 1
        model = f"{self._prefix}{self._count}" if self._is_lora else self._name
        folder = self._folder / model if self._is_lora else self._folder
        write = write_adapter if self._is_lora else write_model
        await compute_async(write, self._policy, folder)
        before = self.published.probe if self.published is not None else None
        return Publication(Served(self._policy.version, model), folder, probe, before)

    async def _forget_adapters(self) -> None:
        """Adapters that no request names any more, nor will."""
        in_use: set[str] = set()
        for replica in self._replicas.replicas:
            kept = self._replicas.models_in_use(replica)
            in_use |= kept
            for name in replica.adapters - kept if replica.out is None else ():
                try:
                    await replica.control.unload_adapter(name)
                except PolicyError as error:
                    logger.warning("an adapter of an earlier version stays loaded: %s", error)
                replica.adapters.discard(name)
        if self._is_lora:
            earlier = [path for path in self._folder.glob(f"{self._prefix}*") if path.name not in in_use]
            for path in earlier:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def write_adapter(policy: PolicyModel, folder: Path) -> None:
    """The adapters under training as PEFT, and vLLM, loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with policy.reading():
        policy.module.save_pretrained(folder)  # type: ignore[operator]


def write_model(policy: PolicyModel, folder: Path) -> None:
    """The model as a plain folder. A file of it is there whole, or the one of before is: a server may start from it at
    any moment."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / ".next"
    shutil.rmtree(fresh, ignore_errors=True)
    policy.save(fresh)
    _untie(policy, fresh)
    for path in sorted(fresh.iterdir()):
        os.replace(path, folder / path.name)
    fresh.rmdir()


def _untie(policy: PolicyModel, folder: Path) -> None:
    """Writes an output layer that shares the embeddings' weights as one of its own: vLLM on a CPU keeps a packed copy
    of it, which reload_weights renews for layers alone that have weights in the file (0.32)."""
    base, weights = policy.base, folder / "model.safetensors"
    output = base.get_output_embeddings()
    name = next((name for name, module in base.named_modules() if module is output), None)
    if not base.config.tie_word_embeddings or output is None or name is None or not weights.exists():
        return
    shared = output.weight.detach().to("cpu", copy=True).contiguous()
    save_file({**load_file(weights), f"{name}.weight": shared}, weights, metadata={"format": "pt"})
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(msgspec.json.encode({**config, "tie_word_embeddings": False}))
