"""What a hint says to install comes from the checkout: on the public index the names are nobody's, or a stranger's."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from agentlightning.installing import FOLDERS, install_command

ROOT = Path(__file__).parents[2]


class Installed:
    """An installed distribution, as `importlib.metadata.distribution` gives it."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch):
    def patch(origin: dict[str, object] | None) -> None:
        monkeypatch.setattr("agentlightning.installing.distribution", lambda name: Installed(origin))

    return patch


def test_a_checkout_is_named_by_its_path(installed_from, tmp_path: Path) -> None:
    root = tmp_path / "my checkout"
    for folder in FOLDERS["agentlightning-sft"]:
        (root / folder).mkdir(parents=True)
    installed_from({"url": (root / "core").as_uri(), "dir_info": {"editable": True}})
    command = shlex.split(install_command("agentlightning-sft"))
    assert command == [
        "pip",
        "install",
        str(root / "adapters/gateway"),
        str(root / "algorithms/policy"),
        str(root / "algorithms/sft"),
    ]


def test_a_repository_is_named_with_the_commit_that_is_installed(installed_from) -> None:
    vcs = {"vcs": "git", "commit_id": "abc123"}
    installed_from({"url": "https://example.org/lightning", "vcs_info": vcs, "subdirectory": "core"})
    assert install_command("agentlightning-rewards") == (
        "pip install 'git+https://example.org/lightning@abc123#subdirectory=rewards/standard'"
    )


@pytest.mark.parametrize(
    "origin", [None, {"url": "file:///no/such/place/core", "dir_info": {}}, {"url": "https://x/y"}]
)
def test_where_nobody_knows_it_is_relative_to_the_checkout(installed_from, origin: dict[str, object] | None) -> None:
    installed_from(origin)
    assert install_command("agentlightning-sft") == (
        "pip install ./adapters/gateway ./algorithms/policy ./algorithms/sft (in the checkout of Agent Lightning)"
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_a_command_brings_what_the_distribution_needs_of_this_project(name: str) -> None:
    """Else pip would look for it on the index."""
    seen = {"agentlightning"}
    for folder in FOLDERS[name]:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        needs = {re.split(r"[^A-Za-z0-9_-]", need)[0] for need in project.get("dependencies", [])}
        assert {need for need in needs if need.startswith("agentlightning")} <= seen
        seen.add(project["name"])
    assert name in seen


def test_no_text_says_to_install_one_of_our_names_from_the_index() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "noxfile.py",)]
    for folder in ("core", "adapters", "algorithms", "rewards", "examples"):
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".toml", ".yaml")]
    said = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"pip install[^`]*[ '\"]agentlightning(?![_/.])", line)
    ]
    assert said == []
