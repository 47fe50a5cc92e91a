"""Recording a deployed agent: its runs become rollouts of a live run, wherever its store is.

attach      ``agl.attach`` and ``agl.detach``
rollout     one run that is recorded, and the choice which are
buffer      what was recorded and not handed over yet: what the agent hands it returns at once
spool       the file of it
delivery    from the file to the store
"""
