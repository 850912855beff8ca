"""Tests over real servers, which share the cores with the tests."""

import os

# Waiting threads of torch must not spin on a core that others need. Read when torch is loaded, which conftest.py does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
