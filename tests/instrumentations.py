"""The instrumentations of the ``openai`` client that people install beside us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai
from openai._resource import AsyncAPIResource, SyncAPIResource

INSTRUMENTATIONS = {
    "OpenInference": ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
    "OpenTelemetry": ("opentelemetry.instrumentation.openai_v2", "OpenAIInstrumentor"),
    "OpenLLMetry": ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
}
"""By their name: the module, and the class in it."""


@contextmanager
def as_it_was() -> Iterator[None]:
    """The client's classes are as before after the block: some instrumentations leave something behind."""
    classes = (openai.OpenAI, openai.AsyncOpenAI, *SyncAPIResource.__subclasses__(), *AsyncAPIResource.__subclasses__())
    before = [dict(vars(kind)) for kind in classes]
    try:
        yield
    finally:
        for kind, then in zip(classes, before, strict=True):
            for name in vars(kind).keys() - then.keys():
                delattr(kind, name)
            for name, value in then.items():
                if vars(kind)[name] is not value:
                    setattr(kind, name, value)
