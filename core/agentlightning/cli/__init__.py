"""The terminal program ``agl``. Nothing outside this package imports it, nor rich, nor click."""

from agentlightning.cli.app import main as main
