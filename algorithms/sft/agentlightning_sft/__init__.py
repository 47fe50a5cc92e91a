"""Supervised fine-tuning: on the agent's own best rollouts, or on demonstrations.

selection         which rollouts are worth imitating
demonstrations    JSONL of messages → sequences
cross_entropy     the update
algorithm         the training loop
"""
