"""Outputs of processes."""

import os

import pytest


@pytest.fixture
def unread_pipe():
    """The end of a pipe to write to; the other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)
