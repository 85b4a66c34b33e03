"""What an address may leave out."""

from __future__ import annotations

import pytest

from agent.cli.connection import with_port


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("localhost", "localhost:50051"),
        ("gpu.example.org:7", "gpu.example.org:7"),
        ("::1", "[::1]:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("unix:/run/agent.sock", "unix:/run/agent.sock"),
        ("dns:///gpu.example.org", "dns:///gpu.example.org"),
    ],
)
def test_the_port_is_the_usual_one_unless_it_is_named(given: str, expected: str):
    assert with_port(given) == expected
