"""Tasks from files, data sets, functions and iterables, and what is said about bad ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agentlightning.data import load_tasks
from agentlightning.errors import DataError
from agentlightning.records import Task

ROWS = [
    {"id": "a", "input": "1 + 1", "expected": "2", "level": "easy"},
    {"id": "b", "input": "7 * 8", "expected": "56", "level": "hard"},
]
TASKS = [
    Task(id="a", input="1 + 1", expected="2", metadata={"level": "easy"}),
    Task(id="b", input="7 * 8", expected="56", metadata={"level": "hard"}),
]


def write_jsonl(folder: Path) -> str:
    import msgspec

    path = folder / "tasks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n\n".join(map(msgspec.json.encode, ROWS)))
    return str(path)


def write_csv(folder: Path) -> str:
    path = folder / "tasks.csv"
    path.write_text("id,input,expected,level\na,1 + 1,2,easy\nb,7 * 8,56,hard\n")
    return str(path)


def write_parquet(folder: Path) -> str:
    import pyarrow
    from pyarrow import parquet

    path = folder / "tasks.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return str(path)


def write_hugging_face(folder: Path) -> str:
    write_parquet(folder)
    return f"hf:{folder}:train"


def make_data_set(folder: Path) -> Any:
    import datasets

    return datasets.Dataset.from_list(ROWS)


@pytest.mark.parametrize(
    "make",
    [write_jsonl, write_csv, write_parquet, write_hugging_face, make_data_set, lambda _: iter(ROWS), lambda _: TASKS],
    ids=["jsonl", "csv", "parquet", "hf folder", "data set", "dicts", "tasks"],
)
def test_every_source_gives_the_same_tasks(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert load_tasks(make(tmp_path)) == TASKS


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield lambda source: (tmp_path / "my_tasks.py").write_text(source) and None
    sys.path[:] = path
    sys.modules.pop("my_tasks", None)


def test_a_function_named_in_the_config_gives_tasks(module: Callable[[str], None]) -> None:
    module("def numbers():\n    for i in range(3):\n        yield {'input': i}\n")
    assert [task.input for task in load_tasks("my_tasks:numbers")] == [0, 1, 2]


def test_fields_name_the_columns() -> None:
    row = {"question": "1 + 1", "solution": "2", "answer": "the other answer"}
    (task,) = load_tasks([row], fields={"input": "question", "expected": "solution"})
    assert (task.input, task.expected, task.metadata) == ("1 + 1", "2", {"answer": "the other answer"})


def test_answer_is_another_name_of_expected() -> None:
    (task,) = load_tasks([{"input": "1 + 1", "answer": "2"}])
    assert (task.expected, task.metadata) == ("2", {})


def test_a_metadata_column_is_the_metadata() -> None:
    (task,) = load_tasks([{"input": 1, "metadata": {"level": "easy"}, "source": "book"}])
    assert task.metadata == {"level": "easy", "source": "book"}


@pytest.mark.parametrize("quoted", [True, False])
def test_a_cell_of_any_length_is_read(tmp_path: Path, quoted: bool) -> None:
    long = "word " * 40_000
    path = tmp_path / "t.csv"
    path.write_text(f'input,expected\n"{long}",1\n' if quoted else f"input,expected\n{long},1\n")
    (task,) = load_tasks(path)
    assert (task.input, task.expected) == (long, "1")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_file_may_have_a_byte_order_mark_any_line_ends_and_cells_of_several_lines(
    tmp_path: Path, end: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(["input,expected", '"one', 'two ""three""",2', "x,", ""]).encode())
    first, second = load_tasks(path)
    assert (first.input.split(), first.expected) == (["one", "two", '"three"'], "2")
    assert (second.input, second.expected) == ("x", "")


def test_an_integer_of_any_size_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"input": 123456789012345678901234567890, "expected": -98765432109876543210}')
    (task,) = load_tasks(path)
    assert (task.input, task.expected) == (123456789012345678901234567890, -98765432109876543210)


def test_a_task_without_an_id_is_named_by_its_content() -> None:
    first, second = load_tasks([{"input": "x", "a": 1, "b": 2}, {"input": "y"}])
    assert first.id != second.id
    assert load_tasks([{"input": "new"}, {"b": 2, "a": 1, "input": "x"}])[1].id == first.id


def test_the_name_of_a_task_is_the_same_in_another_process() -> None:
    program = "from agentlightning.data import load_tasks; print(load_tasks([{'input': 'x', 'tags': ['a']}])[0].id)"
    ids = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(ids) == 1


def test_copies_of_one_task_get_names_of_their_own() -> None:
    tasks = load_tasks([{"input": 1}] * 3)
    assert [task.id for task in tasks] == [tasks[0].id, f"{tasks[0].id}-2", f"{tasks[0].id}-3"]


def test_no_more_than_the_limit_is_read() -> None:
    assert [task.input for task in load_tasks(({"input": i} for i in count()), limit=2)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"input": 1}\n\n{"input": \n', "t.jsonl:3: not JSON: "),
        ("t.jsonl", b'{"input": 1}\n{"input": "\xff"}\n', "t.jsonl:2: not JSON: 'utf-8' codec"),
        ("t.jsonl", b'{"input": 1}\n[1, 2]\n', "t.jsonl:2: expected keys and values"),
        ("t.jsonl", b'{"question": "?", "answer": 1}', "t.jsonl:1: no input; its keys: question, answer."),
        ("t.jsonl", b'{"input": null}', "t.jsonl:1: no input"),
        ("t.jsonl", b'{"id": 1, "input": 1}\n{"id": 1, "input": 2}', r"t.jsonl:2: id '1' was given at .*t.jsonl:1"),
        ("t.jsonl", b"\n", "t.jsonl: no tasks in it"),
        ("t.csv", b"input,expected\n", "t.csv: no tasks in it"),
        ("t.csv", b"input,expected\n1\n", "t.csv:2: expected the 2 columns of the header"),
        ("t.csv", b"input,expected\n1,2\n1,2,3\n", "t.csv:3: expected the 2 columns of the header"),
        ("t.csv", b"input\n\xff\n", "t.csv:2: not CSV in UTF-8: .*save it as UTF-8"),
        ("t.csv", b"input\n" + b"fine\n" * 5000 + "café\n".encode("latin-1"), "t.csv:5002: not CSV in UTF-8"),
        ("t.csv", "input\n1\n".encode("utf-16"), "t.csv:1: not CSV in UTF-8"),
        ("t.csv", "input\n1\n".encode("utf-16-le"), "t.csv:1: a NUL byte: the file is UTF-16, or damaged"),
        ("t.csv", b"input\n1\n2\x00\n", "t.csv:3: a NUL byte"),
        ("t.csv", b'input,expected\n1,2\n"3,4\n5,6\n', "t.csv:3: not CSV: a quote is opened here, or below, and never"),
        ("t.csv", b"input,input\n1,2\n", "t.csv:1: the column 'input' is there twice"),
        ("t.csv", b"input;expected\n1;2\n", "t.csv:1: the only column is 'input;expected': separate columns by commas"),
        ("t.csv", b"input,expected\nWell, yes,2\n", "t.csv:2: expected the 2 columns of the header, got 3; text with"),
        ("t.csv", b"question,expected\n1,2\n", "t.csv:2: no input; its keys: question, expected"),
        ("t.csv", b"", "t.csv: no tasks in it"),
        ("t.jsonl", b"", "t.jsonl: no tasks in it"),
        ("t.jsonl", b'{"input": 1},\n{"input": 2}', "t.jsonl:1: not JSON: .*one object on each line, with no commas"),
        ("t.jsonl", b'{"input": 1,}', "t.jsonl:1: not JSON: .*trailing comma"),
        ("t.jsonl", b'[\n{"input": 1}\n]', "t.jsonl:1: not JSON: .*one object on each line"),
        ("t.jsonl", b'{\n"input": 1\n}', "t.jsonl:1: not JSON: .*one object on each line"),
        ("t.jsonl", b"{'input': 1}", "t.jsonl:1: not JSON: "),
        ("t.jsonl", b'{"input": NaN}', "t.jsonl:1: not JSON: "),
        ("t.jsonl", b'{"input": 1e999}', "t.jsonl:1: not JSON: Number out of range"),
        ("t.jsonl", b'{"input": "\\ud800"}', "t.jsonl:1: not JSON: "),
        ("t.jsonl", b"[" * 100_000, "t.jsonl:1: not JSON: "),
        ("t.jsonl", '{"input": 1}'.encode("utf-16"), "t.jsonl:1: not JSON: .*the file is UTF-16, or damaged: save it"),
        ("t.jsonl", b'{"input": 1}\n{"input": "caf\xe9"}', "t.jsonl:2: not JSON: .*save the file as UTF-8"),
        ("t.parquet", b"no parquet", "t.parquet: not Parquet: "),
        ("t.parquet", b"", "t.parquet: not Parquet: "),
        ("t.parquet", b"PAR1" + b"\x00" * 50 + b"PAR1", "t.parquet: not Parquet: "),
        ("t.txt", b"", r"t.txt: expected a file \(.jsonl, .csv, .parquet\), hf:name or module:function"),
    ],
)
def test_a_bad_file_is_named_with_the_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_tasks(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.jsonl", "no task file at /.*no/such.jsonl"),
        ([], "tasks: no tasks in it"),
        ([{"input": 1}, "text"], r"tasks\[1\]: expected keys and values, .* got str"),
        ({"train": [], "test": []}, "got a mapping of train, test: pick one"),
        (7, "expected a path, module:function or an iterable, got int"),
        ("no_such_module:tasks", "tasks: no_such_module:tasks: no module named 'no_such_module'"),
        ("json:dumps", "json:dumps: TypeError"),
    ],
)
def test_a_bad_source_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_tasks(source)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"t.csv cannot be read: .*directory"):
        load_tasks(tmp_path / "t.csv")


def test_an_unknown_data_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"hf:no_owner/no_name: cannot be loaded: "):
        load_tasks("hf:no_owner/no_name")


def test_a_function_that_raises_is_named_with_the_line(module: Callable[[str], None]) -> None:
    module("def numbers():\n    yield {'input': 1}\n    yield 1 / 0\n")
    with pytest.raises(DataError, match=r"my_tasks:numbers: ZeroDivisionError: .*my_tasks.py:3"):
        load_tasks("my_tasks:numbers")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": "question"}, "tasks.fields: 'inputs' is no field of a task; did you mean 'input'?"),
        ({"input": "queston"}, "no 'queston', which tasks.fields names as input; did you mean 'question'?"),
    ],
)
def test_fields_that_name_nothing_are_named(fields: dict[str, str], message: str) -> None:
    with pytest.raises(DataError) as error:
        load_tasks([{"question": "1 + 1"}], fields=fields)
    assert message in str(error.value)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install pyarrow$"):
        load_tasks(path)
