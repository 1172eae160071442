"""Which process of the server a benchmark looks into."""

import pytest

from bench.server import BenchError, Target


def test_the_first_process_of_a_role_is_profiled() -> None:
    roles = {11: "gateway", 12: "consumer", 13: "consumer"}
    target = Target("http://localhost", "", "", None, roles=roles)
    assert target.process("consumer") == 12
    with pytest.raises(BenchError, match=r"No process of role 'gatway' runs; there are consumer, gateway\."):
        target.process("gatway")


def test_a_server_in_one_process_has_all_roles() -> None:
    assert Target("http://localhost", "", "", 7).process("consumer") == 7
