"""The names that CrewAI does not promise, all of them: used here, and nowhere else.

Checked with crewai 1.11.0 and 1.15.30. Where one is missing, what depends on it is left out.
"""

from __future__ import annotations

from typing import Any


def memory_of(crew: Any) -> Any:
    """A crew's memory, or None. The public ``memory`` may be True, which means the one in ``_memory``."""
    return getattr(crew, "_memory", None)


def set_memory(crew: Any, memory: Any) -> None:
    """Gives a crew another memory."""
    crew.memory = crew._memory = memory


def forget_outputs(crew: Any) -> None:
    """Has a crew keep no outputs of its tasks: all crews of a machine share one file, and no public name says which."""
    if hasattr(crew, "_task_output_handler"):
        crew._task_output_handler = _NoOutputs()


class _NoOutputs:
    """In place of the file with the outputs of the last kickoff's tasks, which ``crewai replay`` reads."""

    def reset(self) -> None:
        pass

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        pass

    def load(self) -> list[dict[str, Any]]:
        return []
