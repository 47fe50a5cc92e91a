"""What an answer is worth: the replayed endpoint says what the recorded one was."""


def recorded_score(rollout, task):
    return float(rollout.output)
