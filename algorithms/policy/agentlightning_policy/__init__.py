"""The trainable policy and the embedded engine, for the algorithms that train weights.

config       what a config file says of the policy and its engine; imports no torch
compute      the one thread of this process in which torch computes
model        the policy: weights, tokenizer, version
batches      rows → micro-batches in which shared prefixes are computed once
logprobs     log-probabilities of the tokens that were sampled
softmax      logits → log-probabilities and entropy, in few passes over memory
layers       linear layers, embeddings, RMSNorm and SwiGLU, faster on a CPU
attention    attention that is computed outside of the model: by the engine over its cache, by the trainer over a tree
tree_attention, siblings, split_attention
             that of the trainer; what of a batch is computed side by side; the same on a CPU, in two parts
flash        torch's fused attention on a CPU, whose parts can be merged
losses       per-token losses, aggregations, KL, sampler correction
optimize     AdamW, and its checkpoints
update       rows → micro-batches → loss → optimizer steps
trainer      what every backend that trains in this process shares
backend      the backend ``torch``: trained here, and served by the engine
engine       the OpenAI API on loopback, served from the very weights under training
"""

import os

# Read when torch loads OpenMP: a thread that waits for another spins for a moment, as long as the next small operation
# takes to begin, and then sleeps. By default it spins for milliseconds, and where other processes want the cores, what
# it waits for cannot run meanwhile; asleep at once, each operation pays for waking it (tests/bench/waiting.py).
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["GOMP_SPINCOUNT"] = "10000"
