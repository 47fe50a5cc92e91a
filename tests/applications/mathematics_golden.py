"""What GSM8K's public evaluators say of answers: openai/grade-school-math (dataset.py), and the task gsm8k of
EleutherAI/lm-evaluation-harness, whose filters are called strict-match and flexible-extract.

``python mathematics_golden.py FOLDER`` runs them, and writes mathematics_golden.json. FOLDER is a clone of
grade-school-math; lm_eval is installed (0.4.13 with sacrebleu will do). ``--all`` compares the example's reward with
them on all solutions of models that grade-school-math publishes, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_suffix(".json")
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
PROBLEMS = 60
"""Every so many of GSM8K's test problems give the solutions, and the spellings of an answer."""
IGNORED = [",", "\\$", "(?s).*#### ", "\\.$"]
"""What the harness leaves out before it compares: gsm8k.yaml, version 3.0."""

SPELLINGS = {
    "as GSM8K writes it": "#### {n}",
    "as the agent says it": "The answer is {n}.",
    "the agent, wrong": "The answer is {wrong}.",
    "the agent, negative": "The answer is -{n}.",
    "wrong": "#### {wrong}",
    "negative": "#### -{n}",
    "thousands": "#### {thousands}",
    "no answer": "I do not know.",
    "empty": "",
    "a digit more": "The answer is {n}0.",
    "the calculation alone": "2 * {n} = {double}",
    "the right number before the last": "The answer is {n}. Or is it {wrong}?",
    "a unit after it": "The answer is {n} dollars, for each of the 3 days.",
    "decimals": "#### {n}.00",
    "a currency": "#### ${n}",
    "a full stop": "#### {n}.",
    "bold": "The answer is **{n}**.",
    "boxed": "\\boxed{{{n}}}",
    "two answers, the last right": "#### {wrong}\nWait.\n#### {n}",
    "two answers, the first right": "#### {n}\nWait.\n#### {wrong}",
    "no space": "####{n}",
    "a calculation after it": "The answer is {n}, since {double} / 2 = {n}",
    "a percent sign": "The answer is {n}%.",
}


def answers(folder: Path) -> Iterator[dict[str, Any]]:
    """Answers to GSM8K's test problems: what models wrote, and the right one in many spellings."""
    path = folder / "grade_school_math" / "data" / "example_model_solutions.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        expected = row["ground_truth"].rsplit("\nA: ", 1)[1].replace(",", "")
        for model in MODELS:
            said = row[model]["solution"].replace("\nA: ", "\n#### ")
            yield {"spelling": model, "said": said, "expected": expected, "published": row[model]["is_correct"]}
        number = int(expected)
        values = {"n": number, "wrong": number + 1, "double": 2 * number, "thousands": f"{number:,}"}
        for spelling, text in SPELLINGS.items():
            yield {"spelling": spelling, "said": text.format(**values), "expected": expected}


def judge(folder: Path, cases: list[dict[str, Any]]) -> None:
    """Writes the verdicts of the public evaluators into each case."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    sys.path.insert(0, str(folder / "grade_school_math"))
    from dataset import is_correct

    filters = {
        "strict": RegexFilter(r"#### (\-?[0-9\.\,]+)"),
        "flexible": RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
    }
    for case in cases:
        gold = f"#### {case['expected']}"
        case["grade_school_math"] = is_correct(case["said"], {"answer": gold})
        for name, read in filters.items():
            found = read.apply([[case["said"]]], None)[0]
            case[name] = bool(exact_match_hf_evaluate(found, [gold], IGNORED, ignore_case=True)["exact_match"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a clone of openai/grade-school-math")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    cases = list(answers(arguments.folder))
    if not arguments.all:
        each = len(MODELS) + len(SPELLINGS)
        cases = [case for place in range(0, len(cases), each * PROBLEMS) for case in cases[place : place + each]]
    judge(arguments.folder, cases)
    assert all(case["grade_school_math"] == case.pop("published", case["grade_school_math"]) for case in cases)
    if arguments.all:
        compare(cases)
        return
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def compare(cases: list[dict[str, Any]]) -> None:
    """Writes how often each verdict was given, beside that of the reward."""
    from applications.mathematics_example import numeric_match

    counts: Counter[tuple[str, bool, bool, bool, bool]] = Counter()
    for case in cases:
        ours = numeric_match(case["said"], case["expected"]) == 1.0
        counts[case["spelling"], ours, case["grade_school_math"], case["strict"], case["flexible"]] += 1
    sys.stdout.write("spelling, numeric_match, grade-school-math, strict-match, flexible-extract: how often\n")
    sys.stdout.writelines(f"{' '.join(map(str, key))} {count}\n" for key, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
