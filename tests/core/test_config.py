"""YAML → typed structs, with errors that name the path."""

import msgspec
import pytest

from agentlightning.config import Config, TasksConfig, decode_section, load_config
from agentlightning.errors import ConfigError

MINIMAL = "agent: a:b\ntasks: t.jsonl\nalgorithm: {name: grpo}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_minimal_config_has_every_default(write):
    config = load_config(write(MINIMAL))

    assert config.algorithm == {"name": "grpo"}
    assert config.train == ["*"]
    assert config.runner.concurrency == 64


def test_set_overrides_values_at_any_depth(write):
    config = load_config(
        write(MINIMAL), ["algorithm.name=sft", "algorithm.model.path=x", "runner.timeout=5", "train=[writer]"]
    )

    assert config.algorithm == {"name": "sft", "model": {"path": "x"}}
    assert config.runner.timeout == 5
    assert config.train == ["writer"]


@pytest.mark.parametrize("text", ["1e-5", "2E-06", "1.5e-5", "3e4"])
def test_a_number_in_scientific_notation_is_a_number(write, text):
    assert load_config(write(MINIMAL), [f"algorithm.lr={text}"]).algorithm["lr"] == float(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sed: 1\n", "sed: unknown key; did you mean seed?"),
        (MINIMAL + "seed: one\n", "seed: expected int, got str"),
        (MINIMAL + "runner: {timeout: soon}\n", "runner.timeout: expected float, got str"),
        (MINIMAL + "runner: {retry: 1}\n", "runner.retry: unknown key; did you mean retries?"),
        ("agent: a:b\nalgorithm: {}\n", "tasks: missing, and there is no default"),
        ("agent: a:b\ntasks: {trian: x, train: y}\nalgorithm: {}\n", "tasks.trian: unknown key; did you mean train?"),
        (MINIMAL + "reward: [{nme: x, name: y}]\n", "reward[0].nme: unknown key; did you mean name?"),
        ("- a\n- b\n", "expected a mapping of keys to values, got list"),
        ("agent: [a\n", "config.yaml:2:1: not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_its_path(write, text, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))

    assert message in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="agl init"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["algorithm.lr", "=3", "seed.deep=1"])
def test_a_malformed_override_is_an_error(write, override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(write(MINIMAL + "seed: 3\n"), [override])


def test_the_path_of_a_section_is_in_its_errors():
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        lr: float = 1.0

    with pytest.raises(ConfigError, match=r"algorithm\.lr: expected float, got str"):
        decode_section({"lr": "fast"}, Options, at="algorithm")


def test_a_config_is_what_it_was_after_a_round_trip():
    config = Config(agent="a:b", tasks=TasksConfig(train="t.jsonl"), algorithm={"name": "sft"})

    assert decode_section(msgspec.to_builtins(config), Config) == config
