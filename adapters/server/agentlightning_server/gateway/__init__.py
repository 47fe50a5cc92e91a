"""The OpenAI API in front of upstreams: every call passes as it is, and those of rollouts are recorded."""
