"""No secret is written down: not in spans, failures, log lines, the record of a run, nor in what the store gives."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from agentlightning import redaction
from agentlightning.algorithm import Algorithm
from agentlightning.cli.export import export
from agentlightning.config import Section
from agentlightning.recording import Recorder, failure_of, recording, span
from agentlightning.records import Failure, Generation, Rollout, Span, encode
from agentlightning.redaction import (
    REDACTED,
    begin_redacting,
    is_secret_name,
    redact,
    redact_config,
    redact_known,
    remember,
    remember_named,
    remember_url,
    scrub,
)
from agentlightning.store.base import RunRecord
from agentlightning.store.sqlite import SQLiteStore
from agentlightning.trainer import Trainer

KEY = "the-agents-own-key-7"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Nothing is remembered before a test, nor of it afterwards."""
    monkeypatch.setattr(redaction, "_remembered", {})
    monkeypatch.setattr(redaction, "_longest_first", ())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Incorrect API key provided: sk-proj-abc123DEF456.", f"Incorrect API key provided: {REDACTED}."),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {REDACTED}"),
        ("{'Authorization': 'Basic dXNlcjpwdzE='}", f"{{'Authorization': 'Basic {REDACTED}'}}"),
        ("{'api-key': 'abcd1234efgh'}", f"{{'api-key': '{REDACTED}'}}"),
        ("password=hunter2hunter2 was wrong", f"password={REDACTED} was wrong"),
        ("GET https://me:pw12345@host/v1 failed", f"GET https://me:{REDACTED}@host/v1 failed"),
        ("GET https://host/v1?key=abc12345&alt=sse", f"GET https://host/v1?key={REDACTED}&alt=sse"),
        ("key AIzaSyA1234567890abcdefghijklmnopqrstuv", f"key {REDACTED}"),
        ("ghp_abcdefghijklmnop1234 and hf_abcdefghijklmnop", f"{REDACTED} and {REDACTED}"),
        ("AKIAABCDEFGHIJKLMNOP", REDACTED),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", REDACTED),
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text, clean) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "algorithm.api_key: expected float, got str",
        "this task-based model needs basic authentication, and a bearer of news",
        "max_tokens=100000000 is too many tokens: 12345678901",
        "the token ids [1, 2, 3] of https://host:8080/v1?limit=10000000",
        'File "/home/me/risk-adjusted/run.py", line 7, in <module>',
        "set the environment variable OPENAI_API_KEY",
    ],
)
def test_other_texts_stay_as_they_are(text) -> None:
    assert redact(text) == text


SECRETS = """
    api_key apiKey API-KEY x-api-key OPENAI_API_KEY api_keys api_key_2 hf_token accessToken client_secret password
    DB_PASSWORD Authorization AWS_SECRET_ACCESS_KEY Cookie
"""
NO_SECRETS = """
    api_key_env max_tokens eos_token pad_token stop_token tokens token_ids tokenizer key keys author secretary
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_secrets(name) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", NO_SECRETS.split())
def test_names_of_no_secrets(name) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("name", ["key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "sig", "X-Auth", "code"])
def test_a_request_has_more_of_them(name) -> None:
    assert is_secret_name(name, of_request=True)


def test_a_value_that_was_met_is_blotted_out_everywhere() -> None:
    remember(f"Bearer {KEY}")
    assert redact_known({"a": [f"<{KEY}>", 1], KEY: None}) == {"a": [f"<{REDACTED}>", 1], REDACTED: None}


def test_values_without_a_secret_stay_the_very_same_object() -> None:
    remember(KEY)
    value = {"a": ["text", ("b", 1.5)], "c": None}
    assert redact_known(value) is value


@pytest.mark.parametrize("value", ["", "EMPTY", "test", "k", "1234", "not-needed", None, 12345678])
def test_what_stands_in_texts_by_chance_is_no_secret(value) -> None:
    remember(value)
    assert redact_known("EMPTY test k 1234 not-needed 12345678").count(REDACTED) == 0


def test_the_longer_of_two_secrets_is_blotted_out_whole() -> None:
    remember("secret-key", "secret-key-number-2")
    assert redact_known("secret-key-number-2, secret-key") == f"{REDACTED}, {REDACTED}"


def test_keys_that_are_renewed_push_out_the_oldest() -> None:
    remember(*(f"renewed-key-{number}" for number in range(redaction.MAX_REMEMBERED + 1)))
    assert redact_known("renewed-key-0.") == "renewed-key-0."
    assert redact_known("renewed-key-256.") == f"{REDACTED}."


def test_a_url_tells_its_password_and_its_keys() -> None:
    remember_url("https://me:the-pass-1@host/v1?api_key=the-key-1&limit=the-limit-1")
    assert redact_known("the-pass-1 the-key-1 the-limit-1 me") == f"{REDACTED} {REDACTED} the-limit-1 me"


@pytest.mark.parametrize("name", ["STUB_API_KEY", "STUB_TOKEN", "STUB_SECRET", "STUB_PASSWORD"])
def test_the_environments_secrets_are_known_in_a_rollout(monkeypatch, name) -> None:
    monkeypatch.setenv(name, KEY)
    spans: list[Span] = []
    with recording(Recorder("r", 1, spans.extend)), span("read", note=f"it is {KEY}"):
        pass
    assert spans[0].attributes["note"] == f"it is {REDACTED}"


@pytest.mark.parametrize("value", ["postgres", "12345678", "/run/secrets/token-1", "short"])
def test_a_variable_that_is_a_word_a_number_or_a_path_is_none(monkeypatch, value) -> None:
    monkeypatch.setenv("STUB_PASSWORD", value)
    Recorder("r", 1, list)
    assert redact_known(f"see {value}") == f"see {value}"


def test_a_failure_holds_no_secret_however_it_was_made() -> None:
    remember(KEY)
    made = Failure(type="tool_error", message=f"{KEY} is wrong", traceback=f"…{KEY}…")
    raised = failure_of(ValueError(f"{KEY}, sk-abcdefgh12345"))
    assert (made.message, made.traceback) == (f"{REDACTED} is wrong", f"…{REDACTED}…")
    assert raised.message == f"{REDACTED}, {REDACTED}"
    assert KEY not in str(raised.traceback)


def test_a_span_holds_no_secret_and_its_tokens_stay() -> None:
    remember(KEY)
    spans: list[Span] = []
    recorder = Recorder("r", 1, spans.extend)
    call = recorder.start("llm", f"chat {KEY}", attributes={"deep": [{"url": KEY}]})
    ids = np.array([1, 2, 3], np.int32)
    said = [{"role": "user", "content": f"my key is {KEY}"}]
    response = {"role": "assistant", "content": KEY}
    call.generation = Generation(messages=said, response=response, response_ids=ids)
    recorder.end(call)
    assert KEY not in repr(spans)
    assert call.generation.messages[0]["content"] == f"my key is {REDACTED}"
    assert call.generation.response_ids is ids
    assert response["content"] == KEY  # an object of the agent's may stand in it


def test_what_only_looks_like_a_secret_stays_in_what_was_said() -> None:
    spans: list[Span] = []
    recorder = Recorder("r", 1, spans.extend)
    call = recorder.start("llm", "chat")
    call.generation = Generation(messages=[{"role": "user", "content": "password=hunter2hunter2"}])
    recorder.end(call)
    assert spans[0].generation.messages[0]["content"] == "password=hunter2hunter2"


def test_a_log_line_of_ours_holds_no_secret(caplog) -> None:
    begin_redacting()
    remember(KEY)
    logger = logging.getLogger("agentlightning_plugin.of.somebody")
    try:
        raise ValueError(KEY)
    except ValueError:
        logger.exception("%s failed with %d%%", KEY, 50)
    assert KEY not in caplog.text
    assert f"{REDACTED} failed with 50%" in caplog.text
    assert f"ValueError: {REDACTED}" in caplog.text


def test_a_log_line_of_others_stays_as_it_is(caplog) -> None:
    begin_redacting()
    remember(KEY)
    logging.getLogger("somebody").warning("%s", KEY)
    assert KEY in caplog.text


def test_log_records_are_made_as_before_until_a_run_or_a_recording_begins() -> None:
    code = """
import logging, agentlightning.trainer, agentlightning.redaction
from agentlightning.recording import Recorder
assert logging.getLogRecordFactory() is logging.LogRecord
Recorder("r", 1, print)
ours = logging.getLogRecordFactory()
assert ours is not logging.LogRecord
Recorder("r", 2, print)
assert logging.getLogRecordFactory() is ours
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_config_holds_no_secret_and_its_secrets_are_known() -> None:
    headers = {"Authorization": "Bearer abcdef12"}
    config = {
        "algorithm": {"lr": 1e-5, "api_key": KEY, "eos_token": "</s>", "api_key_env": "OPENAI_API_KEY"},
        "reward": [{"config": {"token": "tok-123456", "key": "answer", "headers": headers}}],
        "password": 12345678,
        "url": "https://me:pw12345@host",
        "secret": None,
    }
    assert redact_config(config) == {
        "algorithm": {"lr": 1e-5, "api_key": REDACTED, "eos_token": "</s>", "api_key_env": "OPENAI_API_KEY"},
        "reward": [{"config": {"token": REDACTED, "key": "answer", "headers": {"Authorization": REDACTED}}}],
        "password": REDACTED,
        "url": f"https://me:{REDACTED}@host",
        "secret": None,
    }
    assert redact(f"{KEY} tok-123456 abcdef12") == f"{REDACTED} {REDACTED} {REDACTED}"


class Judged(Algorithm):
    class Config(Section):
        api_key: str

    async def run(self, run: object) -> None:
        raise ValueError(f"{KEY} was refused")


async def test_the_record_of_a_run_holds_no_secret(tmp_path) -> None:
    trainer = Trainer(
        agent=lambda question: question,
        tasks=[{"input": "a"}, {"input": "b"}],
        reward=lambda rollout, task: 1.0,
        algorithm=Judged(Judged.Config(api_key=KEY)),
        store=f"sqlite:///{tmp_path / 'runs.db'}",
        directory=tmp_path,
    )
    with pytest.raises(ValueError, match="was refused"):
        await trainer.fit_async()
    store = SQLiteStore(tmp_path / "runs.db", read_only=True)
    (record,) = await store.runs()
    await store.close()
    assert record.config["algorithm"]["api_key"] == REDACTED
    assert record.message == f"ValueError: {REDACTED} was refused"


class Client:
    """What an agent may hand back: its repr tells everything."""

    def __repr__(self) -> str:
        return f"Client(api_key={KEY!r})"


async def test_nothing_that_is_read_from_the_store_holds_a_secret(tmp_path) -> None:
    remember(KEY)
    store = SQLiteStore(tmp_path / "runs.db")
    await store.open_run(RunRecord(id="run", name="run", algorithm="select", created_at=0.0))
    rollout = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1)
    await store.enqueue([rollout])
    (leased,) = await store.lease("me", ids=["r"])
    store.add_spans([Span(rollout_id="r", kind="tool", name="t", attributes={"client": Client(), "ids": [1]})])
    leased.output, leased.status = {"client": Client(), "n": 2**70}, "succeeded"
    await store.finish(leased)
    await store.flush()
    path = tmp_path / "out.jsonl"
    await export(store, "run", what="rollouts", format="jsonl", path=path)
    await store.close()
    assert KEY not in path.read_text()
    assert json.loads(path.read_text())["output"]["client"] == f"Client(api_key='{REDACTED}')"
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.glob("runs.db*"))


def test_arrays_in_a_record_are_not_touched() -> None:
    remember(KEY)
    ids = np.arange(5, dtype=np.int32)
    record = Generation(messages=[{"role": "user", "content": KEY}], response_ids=ids)
    clean = msgspec.msgpack.decode(scrub(encode(record)))
    assert clean["response_ids"] == msgspec.msgpack.decode(encode(record))["response_ids"]
    assert clean["messages"][0]["content"] == REDACTED


def test_a_record_that_cannot_be_read_again_holds_no_secret_either() -> None:
    remember(KEY)
    a_map_as_a_key = b"\x81\x81\x01\x02" + encode(KEY)
    assert KEY.encode() not in scrub(a_map_as_a_key)
    assert KEY.encode() not in scrub(encode({((KEY, 1),): [KEY]}))


def test_names_of_a_request_are_remembered() -> None:
    remember_named({"X-Api-Key": "the-key-11", "X-Team": "the-team-1", "key": ["the-key-22"]}, of_request=True)
    assert redact_known("the-key-11 the-team-1 the-key-22") == f"{REDACTED} the-team-1 {REDACTED}"


async def test_the_environments_secrets_are_known_to_a_store(tmp_path, monkeypatch) -> None:
    """Spans that are received from elsewhere are written without a recorder."""
    monkeypatch.setenv("STUB_API_KEY", KEY)
    store = SQLiteStore(tmp_path / "runs.db")
    store.add_spans([Span(rollout_id="r", kind="tool", name="t", attributes={"note": KEY})])
    await store.flush()
    (kept,) = await store.spans("r")
    await store.close()
    assert kept.attributes == {"note": REDACTED}
