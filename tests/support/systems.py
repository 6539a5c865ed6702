"""Marks of tests that need what only some systems have; where it is missing they say so."""

import pathlib

import pytest

NEEDS_PROC = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="this system has no /proc"
)
NEEDS_FULL_DEVICE = pytest.mark.skipif(
    not pathlib.Path("/dev/full").exists(), reason="this system has no /dev/full"
)
