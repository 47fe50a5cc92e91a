"""The model layer: what an agent says to its model through the ``openai`` client, recorded and routed."""

from __future__ import annotations
