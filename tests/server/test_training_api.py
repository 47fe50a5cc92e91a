"""Trainings that are submitted to a server: run to their end, stopped, killed, gone on with, and found again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner
from processes import ends
from training_project import CODE, ROLLOUTS, STEPS, TASKS, make_config, make_modules

from agentlightning.cli import main
from agentlightning.config import load_config
from agentlightning.errors import DataError
from agentlightning.store import open_store
from agentlightning.store.owner import started_at
from agentlightning_server.errors import ServerError
from agentlightning_server.keys import Keys
from agentlightning_server.server import LightningServer
from agentlightning_server.training.client import TrainingClient
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Begun, Job, Process, Start, Submission, Training
from agentlightning_server.training.submitting import submission_of

AGL = (sys.executable, "-c", "from agentlightning.cli import main; main()")
KEY = "a-key-of-the-tests-0123456789"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    return make_modules(tmp_path / "modules")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_config(tmp_path / "laptop")


@pytest.fixture
def training_server(serve: Callable[..., LightningServer], modules: Path) -> LightningServer:
    return serve(train_in=modules)


@pytest.fixture
def training_process(start_process: Callable[..., Any], modules: Path) -> Iterator[Any]:
    """``agl server --train-in`` in a process of its own, which ends what it trains."""
    running = start_process("--train-in", str(modules))
    yield running
    running.process.terminate()
    running.process.wait(60)


class Gate:
    """Holds the agent up at one task: it says that it is there, and waits."""

    def __init__(self, modules: Path) -> None:
        self._reached, self._gate = modules / "reached", modules / "gate"
        for pipe in (self._reached, self._gate):
            os.mkfifo(pipe)

    def wait(self) -> int:
        """Returns when the agent is there: the process that it runs in."""
        return int(self._reached.read_text())

    def open(self) -> None:
        """Lets it go on; the others are not held up any more."""
        gate = os.open(self._gate, os.O_WRONLY)
        self._gate.unlink()
        os.close(gate)

    def remove(self) -> None:
        """For others: whoever waits there does so for ever."""
        self._gate.unlink()


@pytest.fixture
def gate(modules: Path) -> Gate:
    return Gate(modules)


def agl(*arguments: str, key: str | None = None) -> Any:
    return CliRunner().invoke(main, arguments, env={"AGL_SERVER_KEY": key})


def submit(url: str, config: Path) -> tuple[TrainingClient, str]:
    client = TrainingClient(url)
    return client, client.submit(submission_of(load_config(config))).id


def ended(client: TrainingClient, id: str) -> Training:
    """The training, when it has ended."""
    return [answer.training for answer in client.follow(id)][-1]


def what_came_of(url: str, run_id: str) -> Any:
    """All of a run that does not depend on where and when it ran."""

    async def read() -> Any:
        store = open_store(url)
        try:
            run = await store.run(run_id)
            assert run is not None
            rollouts = await store.rollouts(run_id)
            metrics = [(metric.step, metric.value) for metric in await store.metrics(run_id) if metric.name == "loss"]
            facts = [
                (one.purpose, one.step, one.task_id, one.id.partition(one.run_id)[2], one.status, one.outcome)
                for one in rollouts
            ]
            return run.status, run.config["tasks"]["digest"], sorted(facts), metrics
        finally:
            await store.close()

    return asyncio.run(read())


def assert_whole(url: str, run_id: str | None) -> None:
    """The run has done everything, once."""
    assert run_id is not None
    status, _, rollouts, losses = what_came_of(url, run_id)
    assert (status, len(rollouts)) == ("succeeded", ROLLOUTS)
    assert {(one[4], one[5]) for one in rollouts} == {("succeeded", 1.0)}
    assert sorted(losses) == [(step, 1.0 / step) for step in range(1, STEPS + 1)]


def test_what_is_submitted_is_watched_to_its_end_and_gives_what_the_same_gives_locally(
    training_server: LightningServer, modules: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-value-that-nobody-may-see-1")
    here = ["--set", f"store=sqlite:///{tmp_path}/local.db", "--set", f"directory={tmp_path}/runs"]
    local = subprocess.Popen([*AGL, "train", str(config), *here], cwd=modules, stdout=subprocess.PIPE)
    watched = agl("train", str(config), "--server", training_server.url)
    assert watched.exit_code == 0, watched.output
    assert "held-out tasks after step 0: mean reward 1.000" in watched.stdout
    assert "my key is [redacted]" in watched.stdout
    (found,) = TrainingClient(training_server.url).all()
    assert (found.status, found.name, found.step, found.steps, found.exit_code) == ("succeeded", "doubling", 3, 3, 0)
    assert watched.stderr.splitlines()[-1] == f"training {found.id} succeeded"
    assert f"step 3/{STEPS}" in watched.stdout
    assert not [path for path in (modules / "trainings").rglob("*") if b"nobody-may-see" in _content(path)]

    output = local.communicate()[0].decode()
    assert local.returncode == 0
    run_id = output.rpartition("run  ")[2].split()[0]
    assert_whole(training_server.url, found.run_id)
    assert found.run_id is not None
    assert what_came_of(training_server.url, found.run_id) == what_came_of(f"sqlite:///{tmp_path}/local.db", run_id)

    for command in ("show", "log"):
        shown = agl("training", command, found.id, "--server", training_server.url)
        assert (shown.exit_code, "held-out tasks after step 3" in shown.stdout) == (0, True), shown.output
    listed = agl("training", "list", "--server", training_server.url)
    assert (listed.exit_code, found.id in listed.stdout, "3/3" in listed.stdout) == (0, True, True)
    for command in ("stop", "resume"):
        refused = agl("training", command, found.id, "--server", training_server.url)
        assert (refused.exit_code, "succeeded" in refused.stderr) == (2, True), refused.output


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_workers_elsewhere_run_the_agent_by_the_command_that_is_told(
    training_server: LightningServer, modules: Path, tmp_path: Path
) -> None:
    laptop = tmp_path / "laptop"
    config = make_config(laptop, agent="elsewhere:answer", runner={"name": "clients"})
    (modules / "doubling.py").rename(laptop / "elsewhere.py")
    (modules / "doubling.py").write_text(CODE.replace("def answer", "def nobody"), encoding="utf-8")
    command = [*AGL, "train", str(config), "--server", training_server.url]
    watching = subprocess.Popen(command, cwd=laptop, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert watching.stderr is not None
    told = [watching.stderr.readline() for _ in range(2)][-1].removeprefix("start a worker: agl ").split()
    assert told == ["work", training_server.url, "--agent", "elsewhere:answer"]
    worker = subprocess.run([*AGL, *told], cwd=laptop, stdout=subprocess.DEVNULL, timeout=120, check=False)
    watching.communicate(timeout=120)
    assert (worker.returncode, watching.returncode) == (0, 0)
    (training,) = TrainingClient(training_server.url).all()
    assert_whole(training_server.url, training.run_id)


def test_a_training_that_is_stopped_goes_on_where_it_ended(
    training_server: LightningServer, config: Path, gate: Gate
) -> None:
    client, id = submit(training_server.url, config)
    gate.wait()
    stopped = agl("training", "stop", id, "--server", client.url)
    assert stopped.stdout == f"training {id} running: asked to stop\n"
    training = ended(client, id)
    assert (training.status, training.exit_code) == ("cancelled", 128 + signal.SIGTERM)
    assert "go on with: agl training resume" in client.show(id).log
    gate.remove()
    resumed = agl("training", "resume", id, "--server", client.url)
    assert resumed.exit_code == 0, resumed.output
    assert ended(client, id).status == "succeeded"
    assert_whole(client.url, training.run_id)


def test_a_training_that_is_killed_fails_alone_and_goes_on_at_once(
    training_server: LightningServer, config: Path, gate: Gate
) -> None:
    client, id = submit(training_server.url, config)
    os.kill(gate.wait(), signal.SIGKILL)
    training = ended(client, id)
    assert (training.status, training.signal, training.exit_code) == ("failed", "SIGKILL", None)
    assert training.message is not None
    assert training.message.startswith("its process was ended by SIGKILL")
    assert httpx.get(f"{client.url}/health").status_code == 200
    gate.remove()
    client.resume(id)
    assert ended(client, id).status == "succeeded", client.show(id).log
    assert_whole(client.url, training.run_id)


def test_a_training_whose_supervisor_is_killed_does_not_outlive_it(
    training_server: LightningServer, modules: Path, config: Path, gate: Gate
) -> None:
    client, id = submit(training_server.url, config)
    process = gate.wait()
    job = msgspec.json.decode((modules / "trainings" / id / "job.json").read_bytes())
    os.kill(job["supervisor"]["pid"], signal.SIGKILL)
    training = ended(client, id)
    assert (training.status, training.exit_code, training.signal) == ("failed", None, None)
    assert ends(process)


def test_a_server_that_is_killed_and_started_again_finds_a_training_that_lives_on(
    training_process: Any, config: Path, gate: Gate
) -> None:
    client, id = submit(training_process.url, config)
    gate.wait()
    training_process.kill_and_start_again()
    assert client.show(id).training.status == "running"
    gate.open()
    training = ended(client, id)
    assert (training.status, training.exit_code) == ("succeeded", 0)
    assert_whole(client.url, training.run_id)


def test_a_training_that_has_gone_with_its_server_has_failed_and_a_later_process_of_its_pid_is_left_alone(
    serve: Callable[..., LightningServer], modules: Path
) -> None:
    folder = TrainingFolder(modules / "trainings" / "0123456789ab")
    folder.make(Submission(config={}, tasks=TASKS))
    now = started_at(os.getpid())
    assert now is not None
    training = Training(id=folder.path.name, name="n", agent="a:b", status="running", submitted_at=1.0, queued_at=1.0)
    start = Start(session="0" * 32, store="http://127.0.0.1:9")
    this = Process(pid=os.getpid(), started=now - 60)
    folder.write("job", Job(training=training, start=start, supervisor=this))
    folder.write("begun", Begun(session=start.session, process=this))
    client = TrainingClient(serve(train_in=modules).url)
    found = ended(client, training.id)
    assert (found.status, found.message) == ("failed", "its process is gone, and the one that watched over it")
    client.resume(training.id)
    assert ended(client, training.id).exit_code == 2
    assert "agent: missing" in client.show(training.id).log


def test_with_their_server_trainings_stop_in_good_order_and_those_that_wait_are_started_by_the_next(
    serve: Callable[..., LightningServer], modules: Path, config: Path, gate: Gate
) -> None:
    first = serve(train_in=modules)
    client, running = submit(first.url, config)
    _, waiting = submit(first.url, config)
    gate.wait()
    assert [training.status for training in client.all()] == ["running", "queued"]
    with pytest.raises(ServerError, match="--train-in: another server trains in"):
        LightningServer(f"sqlite:///{modules}/other.db", port=0, train_in=modules).start()
    first.stop()
    gate.remove()
    second = TrainingClient(serve(train_in=modules).url)
    assert ended(second, waiting).status == "succeeded"
    stopped = second.show(running).training
    assert (stopped.status, stopped.message) == ("cancelled", "asked to stop, with its server")
    assert_whole(second.url, second.show(waiting).training.run_id)


def test_ctrl_c_stops_watching_and_a_training_that_does_not_end_is_killed_when_it_is_stopped_twice(
    training_server: LightningServer, config: Path, gate: Gate
) -> None:
    watching = subprocess.Popen(
        [*AGL, "train", str(config), "--server", training_server.url], stderr=subprocess.PIPE, text=True
    )
    process = gate.wait()
    watching.send_signal(signal.SIGINT)
    said = watching.communicate()[1]
    client = TrainingClient(training_server.url)
    (training,) = client.all()
    assert (watching.returncode, training.status) == (130, "running")
    assert f"stop it: agl training stop {training.id} --server {client.url}" in said
    os.kill(process, signal.SIGSTOP)  # it hears of nothing
    assert client.stop(training.id).status == "running"
    client.stop(training.id)
    training = ended(client, training.id)
    assert (training.status, training.signal, training.message) == ("cancelled", "SIGKILL", "killed")


def test_what_is_wrong_with_a_config_is_said_before_anything_is_queued(
    training_server: LightningServer, tmp_path: Path
) -> None:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "here": ({"sead": 1}, "sead: unknown key; did you mean seed?"),
        "tasks": ({"tasks": "nowhere.jsonl"}, "no task file at"),
        "reward": ({"reward": "doublings:right"}, "no module named 'doublings'"),
        "options": ({"algorithm": {"name": "doubling:Steps", "step": 1}}, "algorithm.step: unknown key; did you mean"),
    }
    for name, (changes, says) in wrong.items():
        refused = agl("train", str(make_config(tmp_path / name, **changes)), "--server", training_server.url)
        assert (refused.exit_code, refused.stdout, says in refused.stderr) == (2, "", True), refused.output
    assert TrainingClient(training_server.url).all() == []
    assert [path.name for path in (tmp_path / "modules" / "trainings").iterdir()] == ["lock"]


def test_tasks_that_json_has_no_form_for_are_refused(config: Path) -> None:
    settings = load_config(config)
    settings.tasks = "training_project:odd_tasks"
    with pytest.raises(DataError, match="task odd: holds what JSON has no form for"):
        submission_of(settings)


def test_a_server_that_is_not_there_and_a_wrong_command_line_are_told(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning_server.asking.FIRST_PATIENCE_SECONDS", 0.0)
    absent = agl("train", str(config), "--server", "http://127.0.0.1:9")
    assert (absent.exit_code, "127.0.0.1:9 does not answer" in absent.stderr) == (2, True), absent.output
    for arguments, says in (
        ((str(config), "--server", "127.0.0.1:8080"), "expected http://HOST:PORT"),
        ((str(config), "--server", "gopher://host"), "submitter 'gopher' is not installed"),
        (("--resume", "a-run", "--server", "http://127.0.0.1:9"), "agl training resume ID --server http://127.0.0.1:9"),
    ):
        refused = agl("train", *arguments)
        assert (refused.exit_code, says in refused.stderr) == (2, True), refused.output


def ask(url: str, verb: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
    headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    return httpx.request(verb, f"{url}/v1/training{path}", headers={**headers, **options.pop("headers", {})}, **options)


ROUTES = (
    *(("POST", ""), ("GET", ""), ("GET", "/0123456789ab"), ("DELETE", "/0123456789ab")),
    *(("POST", "/0123456789ab/stop"), ("POST", "/x/resume")),
)


@pytest.mark.parametrize(("verb", "path"), ROUTES)
def test_trainings_want_the_servers_own_key(
    serve: Callable[..., LightningServer], modules: Path, verb: str, path: str
) -> None:
    url = serve(train_in=modules, key=KEY).url
    scoped = Keys(KEY).issue("run", write=True, seconds=600)
    statuses = [ask(url, verb, path, key).status_code for key in (None, "wrong-0123456789", scoped)]
    assert statuses == [401, 401, 403]
    assert ask(url, verb, path, KEY).status_code in (200, 400, 404)


@pytest.mark.parametrize(("verb", "path"), ROUTES)
def test_a_server_that_trains_nothing_says_how_to_start_one_that_does(
    server: LightningServer, verb: str, path: str
) -> None:
    refused = ask(server.url, verb, path)
    assert (refused.status_code, "agl server --train-in DIR" in refused.json()["message"]) == (409, True)


def test_a_request_that_is_none_is_told_so(training_server: LightningServer) -> None:
    url = training_server.url
    whole = {"config": {}, "tasks": TASKS}
    assert ask(url, "POST", "", json={"config": {}}).status_code == 400
    assert ask(url, "POST", "", json={**whole, "id": "../../etc"}).status_code == 400
    assert ask(url, "POST", "", content=b"{").status_code == 400
    assert ask(url, "POST", "", json=whole, headers={"content-type": "text/plain"}).status_code == 415
    assert ask(url, "POST", "/0123456789ab/stop", headers={"content-type": "text/plain"}).status_code == 415
    assert ask(url, "GET", "/..%2f..").status_code == 404
    for query in ("after=-1", "after=x", "after=nan", "wait=21", "wait=inf"):
        assert ask(url, "GET", f"/0123456789ab?{query}").status_code == 400, query
    missing = ask(url, "POST", "", json=whole)
    assert (missing.status_code, "agent: missing" in missing.json()["message"]) == (422, True)
