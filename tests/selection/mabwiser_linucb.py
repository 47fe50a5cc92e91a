"""What MABWiser says of the decisions in `test_linucb`: its expectations and predictions, as JSON.

pip install mabwiser==2.7.4 && python mabwiser_linucb.py > mabwiser_linucb.json
"""

import json
import sys

import numpy as np

ARMS, DIMENSIONS, DECISIONS, QUESTIONS = 3, 4, 60, 8
CASES = [{"alpha": 1.0, "l2_lambda": 1.0}, {"alpha": 0.25, "l2_lambda": 2.5}, {"alpha": 0.0, "l2_lambda": 0.5}]


def history():
    """Arms (N,), rewards (N,) and contexts (N, D) of the past, and the contexts (Q, D) that are asked about."""
    rng = np.random.default_rng(7)
    contexts = rng.normal(size=(DECISIONS, DIMENSIONS))
    arms = rng.integers(ARMS, size=DECISIONS)
    truth = rng.normal(size=(ARMS, DIMENSIONS))
    rewards = (contexts * truth[arms]).sum(1) + rng.normal(scale=0.3, size=DECISIONS)
    return arms, rewards, contexts, rng.normal(size=(QUESTIONS, DIMENSIONS))


def main():
    from mabwiser.mab import MAB, LearningPolicy

    arms, rewards, contexts, asked = history()
    found = []
    for case in CASES:
        mab = MAB(arms=list(range(ARMS)), learning_policy=LearningPolicy.LinUCB(**case))
        mab.fit(decisions=arms, rewards=rewards, contexts=contexts)
        expectations = [[float(each[arm]) for arm in range(ARMS)] for each in mab.predict_expectations(asked)]
        found.append({**case, "bounds": expectations, "arms": [int(arm) for arm in mab.predict(asked)]})
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
