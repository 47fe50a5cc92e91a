"""`python tests/check_faults.py` runs `agl check` on agents with one fault each, with a tiny model, and prints what it
names, its exit code, and the seconds that it took, loading the model apart."""

# ruff: noqa: T201

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

from click.testing import CliRunner
from conftest import make_tiny_model
from faults import FAULTS, Fault, lay_out, overrides

from agentlightning.cli import main as agl

LIMIT_SECONDS = 15
FINDING = r"^ *{label}:? +(.*(?:\n {{11,}}.*)*)"


def check(fault: Fault) -> tuple[int, str, float]:
    """The exit code of `agl check`, what it says about the fault, and the seconds it took."""
    settings = [part for override in overrides(fault) for part in ("--set", override)]
    began = time.perf_counter()
    ended = CliRunner().invoke(agl, ["check", "config.yaml", *settings])
    seconds = time.perf_counter() - began
    loading = re.search(r"time +([\d.]+) s loading", ended.output)
    found = next(
        (it for label in ("error", "warning") if (it := re.search(FINDING.format(label=label), ended.output, re.M))),
        None,
    )
    message = " ".join((found[1] if found is not None else ended.output).split())
    if fault.said not in " ".join(ended.output.split()):
        message = f"NOT NAMED: {message}"
    return ended.exit_code, message, seconds - float(loading[1] if loading is not None else 0.0)


def main() -> int:
    """Prints the table; 1 where a fault is not named, or not in time."""
    wrong = 0
    os.environ |= {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-none"}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), make_tiny_model(Path(folder) / "model"))
        os.chdir(folder)
        print("fault | exit code | seconds | said\n--- | --- | --- | ---")
        for title, fault in FAULTS.items():
            exit_code, message, seconds = check(fault)
            wrong += exit_code != fault.exit_code or message.startswith("NOT NAMED") or seconds > LIMIT_SECONDS
            print(f"{title} | {exit_code} | {seconds:.1f} | {message}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
