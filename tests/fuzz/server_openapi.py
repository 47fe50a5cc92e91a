"""Schemathesis against the server's own description: no request that it allows, or nearly does, is answered with 500.

python tests/fuzz/server_openapi.py [--max-examples N]
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler

from agentlightning_gateway import Gateway
from agentlightning_server.server import LightningServer


async def main() -> int:
    tokenizer = make_tokenizer()
    async with Gateway(FakeSampler(tokenizer, "yes"), tokenizer=tokenizer) as upstream:
        return await asyncio.to_thread(fuzz, upstream.base_url)


def fuzz(upstream: str) -> int:
    """Serves, and sends; the exit code of Schemathesis."""
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    with (
        tempfile.TemporaryDirectory() as folder,
        LightningServer(f"sqlite:///{folder}/store.db", port=0, upstreams=[upstream]) as server,
    ):
        command = [schemathesis, "run", f"{server.url}/openapi.json", "--url", server.url]
        command += ["--checks", "not_a_server_error", "--header", f"agentlightning-session:{'1' * 32}"]
        command += ["--generation-database", "none", "--seed", "1", *(sys.argv[1:] or ["--max-examples", "100"])]
        hooks = {"SCHEMATHESIS_HOOKS": "fuzz.msgpack_bodies", "PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.run(command, env={**os.environ, **hooks}).returncode


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
