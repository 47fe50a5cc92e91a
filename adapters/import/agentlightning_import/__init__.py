"""Exports of other tools → rollouts, for `agl import`.

langfuse, langsmith, openai   a format each: which record is what
trace                         the steps of a trace → a rollout with its spans
calls, messages, failures     what a model was asked and answered, and what went wrong
scores                        scores and feedback → rewards
values                        texts, times and numbers as exports write them
"""
