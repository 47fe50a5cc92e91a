"""Which tasks a step takes."""

from __future__ import annotations

from drawn_run import group

from agentlightning.records import Task
from agentlightning_grpo.curriculum import Curriculum

TASKS = [Task(id=f"t{number}", input="") for number in range(8)]
FRESH = TASKS[4:]


def chosen(curriculum: Curriculum) -> list[str]:
    return [task.id for task in curriculum.choose(FRESH)]


def observed(replay: float, **rewards: list[float]) -> Curriculum:
    curriculum = Curriculum(TASKS, replay)
    curriculum.observe([group(name, values) for name, values in rewards.items()])
    return curriculum


def test_without_replay_a_step_takes_the_fresh_tasks() -> None:
    assert chosen(observed(0.0, t0=[1, 0])) == ["t4", "t5", "t6", "t7"]


def test_tasks_whose_rewards_spread_most_are_taken_again_in_the_place_of_the_last_fresh_ones() -> None:
    assert chosen(observed(0.5, t0=[1, 0, 0, 0], t1=[1, 1, 0, 0], t2=[1, 1, 1, 0])) == ["t4", "t5", "t1", "t0"]


def test_a_task_that_is_always_right_or_always_wrong_is_not_taken_again() -> None:
    assert chosen(observed(0.5, t0=[1, 1], t1=[0, 0], t2=[1, 0])) == ["t4", "t5", "t6", "t2"]


def test_the_last_group_of_a_task_counts() -> None:
    curriculum = observed(0.5, t0=[1, 0])
    curriculum.observe([group("t0", [1, 1])])
    assert chosen(curriculum) == ["t4", "t5", "t6", "t7"]


def test_no_task_is_taken_twice_in_a_step() -> None:
    assert chosen(observed(0.5, t4=[1, 0])) == ["t4", "t5", "t6", "t7"]


def test_nor_in_several_batches_of_a_step() -> None:
    curriculum = observed(0.5, t0=[1, 0], t1=[1, 0, 0, 0])
    assert chosen(curriculum) == ["t4", "t5", "t0", "t1"]
    assert chosen(curriculum) == ["t4", "t5", "t6", "t7"]
    curriculum.observe([])
    assert chosen(curriculum) == ["t4", "t5", "t0", "t1"]


def test_it_goes_on_from_what_it_remembers() -> None:
    before = observed(0.5, t0=[1, 0], t1=[1, 0, 0, 0])
    assert chosen(Curriculum(TASKS, 0.5, remembered=before.state())) == chosen(before)


def resting(rest: int) -> Curriculum:
    """t4 and t5 were always right, or always wrong, and t0 was neither."""
    curriculum = Curriculum(TASKS, 0.0, rest)
    curriculum.observe([group("t4", [1, 1]), group("t5", [0, 0]), group("t0", [1, 0])])
    return curriculum


def test_without_a_rest_tasks_are_taken_whenever_they_come_up() -> None:
    assert chosen(resting(0)) == ["t4", "t5", "t6", "t7"]


def test_a_task_that_teaches_nothing_rests_where_another_takes_its_place() -> None:
    assert chosen(resting(1)) == ["t6", "t7", "t4", "t0"]


def test_it_is_taken_again_later() -> None:
    curriculum = resting(2)
    for expected in (["t6", "t7", "t4", "t0"], ["t6", "t7", "t4", "t0"], ["t4", "t5", "t6", "t7"]):
        assert chosen(curriculum) == expected
        curriculum.observe([])


def test_a_rest_goes_on_from_what_is_remembered() -> None:
    before = resting(2)
    chosen(before)
    before.observe([])
    after = Curriculum(TASKS, 0.0, 2, before.state())
    assert chosen(after) == ["t6", "t7", "t4", "t0"]
    after.observe([])
    assert chosen(after) == ["t4", "t5", "t6", "t7"]


def test_rewards_that_differ_again_end_a_rest() -> None:
    curriculum = resting(3)
    curriculum.observe([group("t4", [1, 0]), group("t5", [1, 0])])
    assert chosen(curriculum) == ["t4", "t5", "t6", "t7"]
