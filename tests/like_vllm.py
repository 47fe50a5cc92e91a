"""A small HTTP server that speaks what vLLM does: completions by the embedded engine, over a tiny model, and the routes
by which weights are pushed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import torch
import uvicorn
from peft import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentlightning.adapterkit.listening import listen
from agentlightning_policy.config import EngineConfig, LoraConfig, ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel

BASE = "base"


class LikeVllm:
    """Serves the model in ``folder``, as the model ``base``, at ``url``.

    ``refusals`` are statuses that the next completions get; with ``stale`` new weights are taken and not used; with
    ``dev_mode`` False weights cannot be reloaded. ``asked`` counts the completions that were sampled.
    """

    def __init__(self, folder: Path, lora: LoraConfig | None = None) -> None:
        self.folder = folder
        self.refusals: list[int] = []
        self.stale, self.dev_mode, self.asked = False, True, 0
        self.adapters: dict[str, dict[str, torch.Tensor]] = {}
        self.policy = PolicyModel.load(ModelConfig(path=str(folder), device="cpu", lora=lora))
        self._engine = Engine(self.policy, EngineConfig(name=BASE, max_context=256, pack_weights=False))
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens, on the port that it had before where it was stopped."""
        if not self._port:
            await self._engine.start()
        self._socket = listen("127.0.0.1", self._port)
        self._port = int(self._socket.getsockname()[1])
        routes = [
            Route("/health", self._ok, methods=["GET"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/load_lora_adapter", self._load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self._unload, methods=["POST"]),
        ]
        if self.dev_mode:
            routes.append(Route("/collective_rpc", self._reload, methods=["POST"]))
            routes.append(Route("/reset_prefix_cache", self._ok, methods=["POST"]))
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])), daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Nobody answers any more."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)
        self._socket.close()

    async def aclose(self) -> None:
        await self.stop()
        await self._engine.stop()

    async def _ok(self, request: Request) -> Response:
        return Response(status_code=200)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": name} for name in (BASE, *self.adapters)]})

    async def _completions(self, request: Request) -> Response:
        body = msgspec.json.decode(await request.body())
        if "prompt_logprobs" not in body and self.refusals:
            return JSONResponse({"error": "not now"}, status_code=self.refusals.pop(0))
        if body["model"] not in (BASE, *self.adapters):
            return JSONResponse({"error": "no such model"}, status_code=404)
        if "prompt_logprobs" in body:
            return JSONResponse({"choices": [{"prompt_logprobs": self._prompt_logprobs(body["prompt"])}]})
        self.asked += 1
        body = {**body, "model": BASE}
        body.pop("ignore_eos", None)
        url = f"{self._engine.base_url}/completions"
        async with httpx.AsyncClient(timeout=60) as client:
            if not body.get("stream"):
                answer = await client.post(url, json=body)
                return Response(answer.content, answer.status_code, media_type="application/json")
        return StreamingResponse(_passed_on(url, body), media_type="text/event-stream")

    async def _load(self, request: Request) -> Response:
        body = await request.json()
        weights = load_peft_weights(body["lora_path"], device="cpu")
        if not self.stale:
            with self.policy.updating():
                set_peft_model_state_dict(self.policy.module, weights)
        self.adapters[body["lora_name"]] = weights
        return Response(status_code=200)

    async def _unload(self, request: Request) -> Response:
        del self.adapters[(await request.json())["lora_name"]]
        return Response(status_code=200)

    async def _reload(self, request: Request) -> Response:
        if not self.stale:
            with self.policy.updating():
                self.policy.base.load_state_dict(load_file(self.folder / "model.safetensors"), strict=False)
        return JSONResponse({})

    @torch.no_grad()
    def _prompt_logprobs(self, ids: list[int]) -> list[Any]:
        with self.policy.reading():
            logits = self.policy.module(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        values = [{str(id): {"logprob": float(logits[place, id])}} for place, id in enumerate(ids[1:])]
        return [None, *values]


async def _passed_on(url: str, body: dict[str, Any]) -> Any:
    async with httpx.AsyncClient(timeout=60) as client, client.stream("POST", url, json=body) as response:
        async for chunk in response.aiter_bytes():
            yield chunk
