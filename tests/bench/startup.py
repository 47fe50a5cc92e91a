"""What core and the adapters cost before anything runs: CPU and memory of their import, packages that core brings.

``python tests/bench/startup.py``. The packages are counted by really installing core into a fresh environment.
"""

import json
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
PROBE = """
import json, resource, time
start = time.process_time()
import {module}
cpu = time.process_time() - start
print(json.dumps([cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def measure(module: str) -> tuple[float, float]:
    """Median CPU seconds of an import in a fresh interpreter, and median peak memory in MB."""
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", PROBE.format(module=module)])) for _ in range(RUNS)
    ]
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


if __name__ == "__main__":
    print(f"{'import':36} {'CPU s':>8} {'MB':>8}   (median of {RUNS})")
    adapters = [f"agentlightning_{name}.adapter" for name in ADAPTERS if find_spec(f"agentlightning_{name}")]
    for module in ("agentlightning", "agentlightning.trainer", "agentlightning.cli", *adapters):
        cpu, memory = measure(module)
        print(f"{module:36} {cpu:8.3f} {memory:8.1f}")
    names = packages_of_core()
    print(f"pip install ./core brings {len(names)} packages: {', '.join(names)}")
