"""Intermediate rewards: what a recording already knows, as a reward for the step that caused it."""
