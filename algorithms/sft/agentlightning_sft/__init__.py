"""Supervised fine-tuning: on the agent's own best rollouts, or on demonstrations.

algorithm         its credit and its loss; the loop is `agentlightning.policy_gradient`
selection         which rollouts are worth imitating
demonstrations    JSONL of messages → rows
recorded          what deployed agents were recorded to say → rows
"""
