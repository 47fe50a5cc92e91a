"""What adapters of agent frameworks share: where the code that runs here belongs, and how it is written down.

One call of a model is one span: `Recorder.expect_call` and `Recorder.take_expected_call` (`agentlightning.recording`).
Safe patching: `agentlightning.patching`.
"""
