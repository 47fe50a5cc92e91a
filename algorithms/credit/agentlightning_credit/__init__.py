"""Credit for each call of a rollout: which of its steps earned the reward.

discounted      the return from each call on, against that of the others' calls of the same index
gigpo, hgpo     against calls that start from an equal state, or after equal last states
gagpo           generalized advantages, with the group's mean return at each index as the value
mt_grpo         the turn's reward for what was written before a tool's result, the outcome for all
per_agent       any of these within the calls of one agent
tree            rollouts that branch from others, compared with those they branched from
replay          the value of a state, measured: what rollouts earn that go on from there

returns         step rewards and outcome → rewards and returns, per call
advantages      statistics within a set of calls, and writing them
states, peers   when two calls start from the same state, and how many do
histories       what a rollout did before each call, token for token
spans, options  the spans of calls and tools; options that change nothing
"""
