"""Torch's threads sleep while they wait for one another, unless the user has said otherwise."""

import os
import subprocess
import sys

import pytest

PROBE = "import os, sys, agentlightning_policy; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("before", "after"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_policy_says_so_before_torch_is_loaded(before: dict[str, str], after: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | before
    printed = subprocess.check_output([sys.executable, "-c", PROBE], env=environment, text=True)
    assert printed.split() == [after, "False"]
