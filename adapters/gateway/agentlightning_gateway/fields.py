"""What becomes of every field that a request may carry: of the three APIs and of the extras that clients send to vLLM.

A field is

- honoured: the request's type has it (`ChatRequest`, `ResponsesRequest`, `TextRequest`);
- passed over: it changes nothing of what is sampled (`PASSED_OVER`);
- refused by name, unless it asks for what happens anyway (`NEUTRAL`);
- a wish how the model is to write (`CONSTRAINTS`), refused by name unless the request says ``unconstrained``;
- unknown, and refused by name: nobody can tell what it would have changed.

A field that is null is as good as absent.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from agentlightning_gateway.protocol import ApiError

logger = logging.getLogger(__name__)

PASSED_OVER = frozenset(
    {
        # who asks, and what is kept of it
        "user", "safety_identifier", "metadata", "store", "request_id",
        # how fast, and at what price; a prediction only speeds up what is written anyway
        "service_tier", "priority", "prediction", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options", "cache_salt", "background_options",
        # what else the answer shows
        "include", "stream_options", "top_logprobs", "spaces_between_special_tokens",
        # of tools that the endpoint would run itself: none are on offer
        "max_tool_calls",
    }
)  # fmt: skip

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # penalties and biases
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logits_processors": ([],),
    # other ways to draw, to stop and to show
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "stop": ("", []),
    "stop_token_ids": ([],),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "include_reasoning": (True,),
    # another prompt
    "echo": (False,),
    "suffix": ("",),
    "add_special_tokens": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "truncate_prompt_tokens": (),
    "truncation": ("disabled",),
    "prompt_logprobs": (),
    "prompt": (),
    "previous_response_id": (),
    "conversation": (),
    "context_management": ([],),
    "background": (False,),
    # another kind of answer
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "image": (),
    "moderation": (),
    "access_programs": (),
}
"""Refused, unless the value is one of these: what the engine does without the field."""
MAX_NEUTRAL = 64
"""Bytes of such a value."""
NULL, TRUE = msgspec.Raw(b"null"), msgspec.Raw(b"true")

CONSTRAINTS: Mapping[str, tuple[Any, ...]] = {
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "structured_outputs": ({},),
    "structural_tag": (),
    "verbosity": ("medium",),
}
"""How the model is to write, beside ``response_format``, ``text``, a forced ``tool_choice`` and variables of the chat
template: refused, unless the value is one of these or the request is ``unconstrained``."""


def check_fields(request: Mapping[str, msgspec.Raw], honoured: Collection[str]) -> None:
    """Raises `ApiError` (400) for a field of a request that is not honoured."""
    for name, value in request.items():
        if name in honoured or name in PASSED_OVER or value == NULL:
            continue
        if name in CONSTRAINTS:
            if not _is_one_of(value, CONSTRAINTS[name]):
                check_constraint(name, unconstrained=request.get("unconstrained") == TRUE)
        elif name not in NEUTRAL:
            raise ApiError(
                400,
                f"{name}: the engine knows no such field here, so it cannot tell what it would change; leave it out",
                param=name,
            )
        elif not _is_one_of(value, NEUTRAL[name]):
            raise ApiError(400, f"{name} is not supported: it would change the answer", param=name)


def _is_one_of(value: msgspec.Raw, neutral: tuple[Any, ...]) -> bool:
    return len(bytes(value)) <= MAX_NEUTRAL and msgspec.json.decode(value) in neutral


def check_constraint(what: str, *, unconstrained: bool, param: str | None = None) -> None:
    """A wish how the model is to write. Nothing here enforces it: what is drawn must be the policy's own choice, or its
    log-probabilities would be another distribution's. With ``unconstrained`` the log says so, once; without, raises
    `ApiError`."""
    if not unconstrained:
        raise ApiError(
            400,
            f"{what} is not supported: nothing constrains what the policy writes; ask for it in the prompt, "
            "or send `unconstrained: true` to have it passed over",
            param=param or what,
        )
    say_unconstrained(what)


@functools.cache
def say_unconstrained(what: str) -> None:
    """Says in the log, once, that a wish to constrain the policy is passed over."""
    logger.warning(
        "the agent asks for %s: nothing constrains the policy to it; ask for it in the prompt, and reward it", what
    )
