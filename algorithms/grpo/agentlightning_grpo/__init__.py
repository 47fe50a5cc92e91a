"""GRPO and its kin: group-relative policy optimization of any agent's own calls.

losses        per-token losses, aggregations, KL, sampler correction
advantages    rewards → advantages, over the rollouts of a group
presets       whole choices of both by project and version
algorithm     the training loop
"""
