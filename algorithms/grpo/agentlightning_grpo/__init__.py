"""GRPO and its kin: group-relative policy optimization of any agent's own calls.

algorithm     its credit, its loss, and which tasks a step takes; the loop is `agentlightning.policy_gradient`
presets       whole choices of advantage and loss by project and version
curriculum    tasks that are taken again
"""
