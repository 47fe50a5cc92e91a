"""Schemathesis against the gateway's own description: no request that it allows, or nearly does, is answered with 500.

python tests/fuzz/openapi.py [--max-examples N]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler

from agentlightning_gateway import Gateway


async def main() -> int:
    tokenizer = make_tokenizer()
    async with Gateway(FakeSampler(tokenizer, "yes"), tokenizer=tokenizer) as gateway:
        root = gateway.base_url.removesuffix("/v1")
        command = ["schemathesis", "run", f"{root}/openapi.json", "--url", root, "--checks", "not_a_server_error"]
        command += ["--generation-database", "none", "--seed", "1", *(sys.argv[1:] or ["--max-examples", "100"])]
        return (await asyncio.to_thread(subprocess.run, command)).returncode


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
