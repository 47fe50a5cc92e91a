"""What core and the adapters cost before anything runs: CPU and memory of their import, packages that core brings.

``python tests/bench/startup.py``. An adapter's import is what it adds to core's, while no framework is loaded. The
packages are counted by really installing core into a fresh environment.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 7
ADAPTERS = ("openai", "langgraph", "autogen", "crewai", "openai_agents")
ADAPTER_LIMIT = 0.020
PROBE = """
import json, resource, time
{before}
start = time.process_time()
import {module}
cpu = time.process_time() - start
print(json.dumps([cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def measure(module: str, before: str = "") -> tuple[float, float]:
    """Median CPU seconds of an import in a fresh interpreter, compiled before, and median peak memory in MB."""
    probe = PROBE.format(module=module, before=before)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", probe], env=environment)) for _ in range(RUNS + 1)
    ][1:]
    cpu, memory = zip(*runs, strict=True)
    return statistics.median(cpu), statistics.median(memory)


def packages_of_core() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        pip = [str(python), "-m", "pip"]
        subprocess.check_call(
            [*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT / "core")], stderr=subprocess.DEVNULL
        )
        listed = json.loads(subprocess.check_output([*pip, "list", "--format=json"], stderr=subprocess.DEVNULL))
    return [entry["name"] for entry in listed if entry["name"] not in ("pip", "setuptools")]


def main() -> int:
    print(f"{'import':36} {'CPU s':>8} {'MB':>8}   (median of {RUNS})")
    for module in ("agentlightning", "agentlightning.trainer", "agentlightning.cli"):
        cpu, memory = measure(module)
        print(f"{module:36} {cpu:8.3f} {memory:8.1f}")
    slow = []
    for module in (f"agentlightning_{name}.adapter" for name in ADAPTERS if find_spec(f"agentlightning_{name}")):
        cpu, memory = measure(module, "import agentlightning.trainer")
        if cpu > ADAPTER_LIMIT:
            slow.append(module)
        print(f"{module:36} {cpu:8.3f} {memory:8.1f}   {'OVER' if cpu > ADAPTER_LIMIT else 'within'} {ADAPTER_LIMIT} s")
    names = packages_of_core()
    print(f"pip install ./core brings {len(names)} packages: {', '.join(names)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
