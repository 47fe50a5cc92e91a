"""What a run leaves behind to be served, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agentlightning.algorithm import Evaluation
from agentlightning.cli import main
from agentlightning.errors import AlgorithmError, ConfigError, PluginError
from agentlightning.plugins import Plugins
from agentlightning.records import ModelChoice, Policy, Prompt, Task
from agentlightning.report import compare_evaluations
from agentlightning.serving import Servable, ServedModel, prepared
from agentlightning.store import RunRecord
from agentlightning.trainer import FitResult


def run(folder: Path, *, trained: bool = True, **algorithm: Any) -> RunRecord:
    """A run whose folder is under ``folder``, with a model that it trained or without."""
    results = {}
    if trained:
        results["model"] = str(folder / "r1" / "model")
        (folder / "r1" / "model").mkdir(parents=True)
    config = {"directory": str(folder), "algorithm": {"name": "any", **algorithm}}
    return RunRecord(id="r1", name="r", algorithm="any", status="succeeded", config=config, results=results)


def test_the_model_is_served_as_it_was_trained_but_for_what_only_training_needs(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        model={"path": "base", "dtype": "bfloat16", "lora": {"rank": 4}, "chat_template": "prompt.jinja"},
        engine={"max_tokens": 2048, "host": "127.0.0.1", "port": 4000},
    )
    servable = Servable.of_run(record, [])
    assert servable.server == "torch"
    assert servable.model == {"path": str(tmp_path / "r1" / "model"), "dtype": "bfloat16"}
    assert servable.engine == {"max_tokens": 2048}


def test_prompts_go_along_where_a_request_tells_enough(tmp_path: Path) -> None:
    published = [
        Policy(name="policy", model="m", base_url="http://127.0.0.1:1"),
        Prompt(name="all", template="For all."),
        Prompt(name="writers", agents=("writer",), replaces="You write.", template="You write well."),
        Prompt(name="critics", agents=("critic",), template="You are strict."),
    ]
    servable = Servable.of_run(run(tmp_path), published)
    assert [prompt.template for prompt in servable.prompts] == ["For all.", "You write well."]
    assert servable.passed_over == ["critics: it is for critic, and a request does not say which agent makes it"]


def test_of_several_models_one_is_named_by_its_folder(tmp_path: Path) -> None:
    record = run(tmp_path, trained=False)
    for name in ("writer", "critic"):
        record.results[f"model/{name}"] = f"r1/model/{name}"
        (tmp_path / "r1" / "model" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"trained several models; .*/r1/model/writer, .*/r1/model/critic"):
        Servable.of_run(record, [])


def test_without_weights_the_model_that_was_chosen_is_served(tmp_path: Path) -> None:
    choice = ModelChoice(name="model", model="small", base_url="http://127.0.0.1:1/v1", api_key_env="THE_KEY")
    servable = Servable.of_run(run(tmp_path, trained=False), [choice])
    assert servable.server == "forwarding"
    assert servable.model == {"model": "small", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "THE_KEY"}


def test_without_weights_the_model_that_prompts_were_learned_for_is_served_with_them(tmp_path: Path) -> None:
    record = run(tmp_path, trained=False, model={"path": "base", "chat_template": "chatml"}, engine={"port": 4000})
    shown: list[dict[str, Any]] = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    servable = Servable.of_run(record, [Prompt(name="adder", version=1, demonstrations=(shown,))])
    assert (servable.server, servable.model) == ("torch", {"path": "base", "chat_template": "chatml"})
    assert [prompt.demonstrations for prompt in servable.prompts] == [(shown,)]


def test_what_a_failed_training_began_with_is_not_served(tmp_path: Path) -> None:
    record = run(tmp_path, trained=False, model={"path": "base"})
    with pytest.raises(ConfigError, match="left no model"):
        Servable.of_run(record, [Prompt(name="given", template="Be kind.")])


def test_a_run_with_neither_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run r1 \(any, succeeded\) left no model, and chose none"):
        Servable.of_run(run(tmp_path, trained=False), [])


def test_a_model_is_sampled_as_it_was_evaluated_where_a_request_does_not_say(tmp_path: Path) -> None:
    assert Servable.of_run(run(tmp_path / "said", model={"path": "base"}, temperature=0), []).sampling == {
        "temperature": 0
    }
    assert Servable.of_run(run(tmp_path / "not", model={"path": "base"}), []).sampling == {}
    body = msgspec.json.encode({"messages": [], "temperature": 0.7})
    ready = msgspec.json.decode(prepared(body, "chat", prompts=[], model=None, defaults={"temperature": 0}))
    assert ready["temperature"] == 0.7


def test_what_a_run_that_learned_prompts_began_with_is_its_model(tmp_path: Path) -> None:
    record = run(tmp_path, trained=False, model={"path": "base", "lora": {"rank": 4}}, temperature=0)
    servable = Servable.of_beginning(record)
    assert (servable.server, servable.model, servable.prompts) == ("torch", {"path": "base"}, [])
    assert servable.sampling == {"temperature": 0}


def test_a_run_whose_agents_have_models_of_their_own_began_with_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run r1 \(any\) names no model \(algorithm.model\)"):
        Servable.of_beginning(run(tmp_path, trained=False))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
"""Anything that JSON can say."""
MESSAGES = st.lists(
    VALUES
    | st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user"]) | VALUES, "content": VALUES}),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"model": VALUES, "messages": MESSAGES | VALUES, "input": MESSAGES | VALUES, "instructions": VALUES}
)


@settings(derandomize=True, deadline=None)
@example(body={"messages": [{"role": "system", "content": [{"text": 5}]}]}, operation="chat")
@given(body=BODIES | VALUES, operation=st.sampled_from(["chat", "responses", "text_completion"]))
def test_whatever_a_request_says_it_is_prepared_or_left_to_its_reader(body: Any, operation: str) -> None:
    """What the run changes is not the place to find out that a request makes no sense."""
    prompts = [Prompt(name="one", template="B", replaces="A"), Prompt(name="all", template="C")]
    ready = msgspec.json.decode(prepared(msgspec.json.encode(body), operation, prompts=prompts, model="m"))
    if isinstance(body, dict):
        assert ready["model"] == "m"
        assert {"model", *body} <= set(ready)
    else:
        assert ready == body


@settings(derandomize=True, deadline=None)
@given(body=st.binary())
def test_a_body_that_is_no_json_is_left_as_it_is(body: bytes) -> None:
    assume(not body.strip().startswith((b"{", b"[")))
    ready = prepared(body, "chat", prompts=[], model="m")
    assert ready == body


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        Servable.of_folder(tmp_path / "nothing")
    result = CliRunner().invoke(main, ["serve", "runs/nothing/model"])
    assert (result.exit_code, result.stderr) == (2, "error: there is no folder runs/nothing/model\n")


def test_of_a_runs_folder_its_model_is_served(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert Servable.of_folder(tmp_path).model == {"path": str(tmp_path / "model")}


def test_without_a_server_installed_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.serving.plugins", lambda: Plugins([]))
    with pytest.raises(PluginError, match=r"server 'torch' is not installed: pip install .*policy"):
        ServedModel(Servable.of_folder(tmp_path))


def test_a_result_without_weights_cannot_be_served() -> None:
    with pytest.raises(AlgorithmError, match="run r1 trained no weights and chose no model"):
        FitResult(run_id="r1", status="succeeded").serve()


def test_a_notebook_shows_a_result_as_a_table_with_nothing_of_it_taken_for_markup() -> None:
    tasks = [Task(id="a", input="?"), Task(id="b", input="?")]
    evaluations = [
        Evaluation(step=step, variant="<b>", tasks=tasks, rollouts=[], rewards=[0.0, float(step)]) for step in (0, 1)
    ]
    result = FitResult(
        run_id="r1",
        status="succeeded",
        evaluations=evaluations,
        comparisons=compare_evaluations(evaluations),
        results={"model": "runs/r1/model"},
        findings=["too few tasks"],
    )
    html = result._repr_html_()
    for text in ("<td>&lt;b&gt;</td><td>2</td><td>0.000</td><td>0.500</td>", "runs/r1/model", "r1", "too few tasks"):
        assert text in html
    assert "<b>" not in html
