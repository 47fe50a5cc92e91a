"""What makes a run pointless, read from its first rollout, and what a person should know. Pure functions.

A policy that has learned nothing yet may make any agent fail: where its answers were recorded and the rollout has a
reward, that is something to learn from, and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentlightning.causes import explain, explain_failures
from agentlightning.check.report import NAMELESS, CheckReport, Subject, describe_rollout, destination
from agentlightning.loading import nearest
from agentlightning.recording import matches
from agentlightning.records import AnyResource, Failure, Policy, Rollout, Span, Task


@dataclass(frozen=True)
class _Error:
    text: str
    conclusive: bool = True


def inspect_rollout(
    task: Task,
    rollout: Rollout,
    spans: Sequence[Span],
    *,
    resources: Sequence[AnyResource],
    train: Sequence[str],
    start_seconds: float = 0.0,
    outside: Sequence[str] = (),
    running: Sequence[str] = (),
    logged: Sequence[str] = (),
) -> CheckReport:
    """What a rollout tells that ran with ``resources``, in a run that trains the agents of the patterns ``train``.

    ``outside``: where model calls were made while it ran that belong to no rollout. ``running``: lines of the user's
    code that run still. ``logged``: warnings that were logged meanwhile.
    """
    subject = Subject(resources, train)
    report = describe_rollout(task, rollout, spans, subject, start_seconds)
    calls = [span for span in report.spans if span.kind == "llm"]
    errors = _errors(rollout, calls, subject, outside, running)
    report.conclusive = not errors or any(error.conclusive for error in errors)
    texts = list(dict.fromkeys(error.text for error in errors))
    failure = _agents_failure(rollout)
    unreachable = failure is not None and failure.fault == "infrastructure"
    # One model that cannot be reached is no reason not to compare the others.
    report.errors, demoted = ([], texts) if subject.is_one_of_several and unreachable else (texts, [])
    report.warnings = [*demoted, *_warnings(report, subject, outside, texts), *logged]
    return report


def _errors(
    rollout: Rollout, calls: Sequence[Span], subject: Subject, outside: Sequence[str], running: Sequence[str]
) -> list[_Error]:
    failure = _agents_failure(rollout)
    reached = subject.resource is None or any(map(subject.answered, calls))
    errors = []
    if outside and subject.resource is not None:
        errors.append(_Error(f"model calls were made outside of the rollout: {', '.join(outside)}"))
    elif not reached:
        errors += _why_not_reached(calls, subject, failed=failure is not None)
    elif len(subject.resources) > 1:
        errors += _policies_not_reached(calls, subject, failed=failure is not None)
    if failure is not None and (failure.fault == "infrastructure" or subject.resource is None or not reached):
        errors.append(_Error(f"the agent failed: {_explain(failure, running)}"))
    if failure is None or failure.fault == "agent":
        errors += _why_unscored(rollout)
    return errors


def _agents_failure(rollout: Rollout) -> Failure | None:
    failure = rollout.failure
    return failure if failure is not None and failure.type != "reward_error" else None


def _explain(failure: Failure, running: Sequence[str]) -> str:
    text = explain(failure)
    if failure.exception == "builtins.SystemExit":
        return f"{text}; an agent returns its output, and does not end the process"
    if failure.type == "timeout" and running:
        return f"{text}; it is at {running[0]}"
    if failure.type == "context_too_long":
        return f"{text}; shorten the prompt, or give the model a longer context (max_context)"
    return text


def _policies_not_reached(calls: Sequence[Span], subject: Subject, *, failed: bool) -> list[_Error]:
    """What is wrong where others of several policies were reached: an agent without a call may have had nothing to do,
    one that called something else has."""
    errors = []
    for policy in subject.resources:
        own = [call for call in calls if call.generation is not None and subject.for_agent(call.agent) is policy]
        if own and not any(map(subject.answered, own)):
            errors += _why_not_reached(own, subject, failed=failed, what=f"the policy {policy.name}")
    return errors


def _why_not_reached(calls: Sequence[Span], subject: Subject, *, failed: bool, what: str = "") -> list[_Error]:
    what = what or ("the policy" if isinstance(subject.resource, Policy) else "the chosen model")
    generated = [call for call in calls if call.generation is not None]
    own = [call for call in generated if subject.trains(call.agent)]
    failures = [call.failure for call in own if call.failure is not None]
    elsewhere = sorted({destination(call) for call in own if call.generation and call.generation.policy is None})
    if generated and not own:
        return [_matches_nobody(subject, list(dict.fromkeys(call.agent or NAMELESS for call in generated)))]
    if failed:
        return []
    if not generated:
        return [
            _Error(
                f"no call reached {what}: the agent made no model call through the openai client; does it answer "
                "without one, from a cache, or through another library's client?"
            )
        ]
    if failures:
        return [_Error(f"no call reached {what}: {explain_failures(failures)}")]
    if elsewhere:
        return [_Error(f"no call reached {what}: they went to {', '.join(elsewhere)}")]
    return [_Error(f"{what} answered without token ids and log-probabilities, so there is nothing to train on")]


def _matches_nobody(subject: Subject, seen: Sequence[str]) -> _Error:
    hints = [hint for pattern in subject.patterns if (hint := nearest(pattern, seen)).startswith("; did you mean")]
    text = f"no agent matches {', '.join(subject.patterns)}; seen: {', '.join(seen)}{''.join(hints)}"
    key = "algorithm.policies" if len(subject.resources) > 1 else "train"
    return _Error(f"{text} (`{key}` in the config)", conclusive=bool(hints))


def _why_unscored(rollout: Rollout) -> list[_Error]:
    failure = rollout.failure
    if failure is not None and failure.type == "reward_error":
        where = f" ({failure.where})" if failure.where is not None and failure.where not in failure.message else ""
        return [_Error(f"{failure.message}{where}")]
    if not rollout.rewards:
        return [_Error("the rollout was given no reward: name one in `reward`, or call agl.reward(…) in the agent")]
    return [
        _Error(f"the reward {part.name!r} cannot score it: {part.reason or 'it gave None'}", conclusive=False)
        for part in rollout.rewards
        if part.value is None
    ]


def _warnings(report: CheckReport, subject: Subject, outside: Sequence[str], errors: Sequence[str]) -> list[str]:
    warnings = []
    failure = _agents_failure(report.rollout)
    if failure is not None and not any(error.startswith("the agent failed") for error in errors):
        score = "" if report.rollout.total_reward is None else f", here {report.rollout.total_reward:g}"
        warnings.append(
            f"the agent failed after the policy had answered: {explain(failure)}; such a rollout is learned from "
            f"with the reward that it is given{score}"
        )
    if report.rollout.rewards and all(part.step for part in report.rollout.rewards):
        warnings.append(
            "the rollout was given rewards of steps alone: training learns from them, and evaluations have no outcome "
            "to report; name one in `reward`, or call agl.reward(…) without step=True"
        )
    if outside and subject.resource is None:
        warnings.append(f"model calls were made outside of the rollout: {', '.join(outside)}")
    names = [agent.name for agent in report.agents]
    idle = [pattern for pattern in subject.patterns if not any(matches(name, [pattern]) for name in names)]
    if idle and not errors:
        warnings.append(f"no agent matched {', '.join(idle)} in this rollout; seen: {', '.join(names)}")
    if report.cut_off:
        warnings.append(
            f"{report.cut_off} of {report.answers} answers were cut off (finish_reason length): raise max_tokens, or "
            "the model does not end its answers"
        )
    if report.malformed:
        warnings.append(f"{report.malformed} of {report.answers} answers hold a tool call that is not well-formed")
    return warnings
