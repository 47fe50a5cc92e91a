"""The tree of errors. A message says what was wrong, where, and what to do next."""

from __future__ import annotations


class AgentLightningError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(AgentLightningError):
    """A config file or an argument is wrong; the message names its path, as in ``algorithm.lr``."""


class DataError(AgentLightningError):
    """A task file or data set is missing, empty or malformed; the message names file and line."""


class PluginError(AgentLightningError):
    """A plugin is unknown, ambiguous or broken; the message names it and its distribution."""


class AdapterError(AgentLightningError):
    """No installed adapter runs the agent, or the one that does cannot use it as it is."""


class RewardError(AgentLightningError):
    """A reward plugin gave something that is not a finite number, a dict of them, or None."""


class StoreError(AgentLightningError):
    """The store cannot be opened, read or written."""


class StoreBusyError(StoreError):
    """Another live process holds what was asked for."""


class PolicyError(AgentLightningError):
    """A model cannot be loaded, served, trained or saved."""


class AlgorithmError(AgentLightningError):
    """An algorithm cannot go on: nothing to train on, or a loss that is not finite."""
