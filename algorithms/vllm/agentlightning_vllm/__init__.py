"""A policy that is trained in this process and served by vLLM. It imports no vLLM, which runs in processes of its own.

config     what a config file says of it
backend    the backend ``vllm``: the trainer, the gateway, and the replicas behind it
replicas   which replica answers, and when none may
sampler    prompt ids in, tokens out, by one of the replicas
control    what a replica is told beside requests: weights, adapters, probes
publisher  each version of the weights, to every replica
probe      does a replica serve the weights that it was given?
recovery   a replica that failed is restarted, and in again with the present weights
process    a vLLM that was started here
launcher   the program that ends vLLM with the process that started it
"""
