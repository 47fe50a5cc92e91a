"""A small run of the real thing: a LangGraph agent, a tiny model, GRPO, in a folder of its own."""

from pathlib import Path

import pytest
from small_project import make_project


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with agent, tasks and config; ``agl train config.yaml`` runs there."""
    return make_project(tmp_path, tiny_model)
