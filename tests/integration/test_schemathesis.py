"""Every operation of the HTTP API with generated input, good and bad: never a 5xx, and every answer is one that the document describes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from app.roles import PARTS, build_app
from tests.running import PASSWORD, Server, User, serving, settings_for

EXAMPLES = 20
"""Of each kind for each operation."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def operations() -> list[Any]:
    """A parameter set for each operation of the document."""
    document = build_app(settings_for("postgresql://", "redis://"), stop=lambda part: None)[PARTS].document
    schema = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return [pytest.param(operation, id=operation.definition.raw["operationId"]) for operation in found]


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


async def known(server: Server, owner: User, operation_id: str) -> Mapping[str, Any]:
    """Values that mean something to this server, by the name of the field or parameter."""
    member = await server.user()
    own = await owner.group(member)
    joinable = await member.group(visibility="invite") if operation_id in ("groups_join", "groups_leave") else own
    if operation_id == "groups_leave":
        await owner.ok("POST", f"/groups/{joinable}/join", {"invite_code": await member.invite(joinable)})
    await member.post(joinable, "hello")
    return {
        "group_id": joinable,
        "groups": {joinable: {"seq": 0}},
        "user_id": member.id,
        "invite_code": await member.invite(joinable) if operation_id == "groups_join" else "",
        "username": "newcomer" if operation_id == "accounts_register" else owner.name,
        "password": PASSWORD,
        "name": "engineers",
        "announcement": "开会时间改到三点",
    }


def fuzz(operation: APIOperation[Any, Any, Any, Any], url: str, user: User, values: Mapping[str, Any]) -> set[int]:
    """Call the operation with input of both kinds; returns the statuses that came. Raises when an answer breaks the document."""
    statuses: set[int] = set()

    def check(mode: GenerationMode) -> None:
        @hypothesis.settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
        def run(case: schemathesis.Case[Any], real: bool) -> None:
            if real and mode is GenerationMode.POSITIVE:
                body = case.body if isinstance(case.body, dict) else {}
                for fields in (case.path_parameters, case.query, body):
                    fields.update({name: values[name] for name in fields if values.get(name)})
            response = case.call(base_url=url, headers=user.headers)
            statuses.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        run()

    check(GenerationMode.NEGATIVE)
    check(GenerationMode.POSITIVE)
    return statuses


# Hypothesis sees that the state of `random` changed while it made data: by the server, whose timers have jitter, in another thread.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("operation", operations())
async def test_an_operation_keeps_to_the_document(server: Server, operation: APIOperation[Any, Any, Any, Any]) -> None:
    user = await server.user()
    values = await known(server, user, operation.definition.raw["operationId"])
    statuses = await asyncio.to_thread(fuzz, operation, server.url, user, values)
    assert any(200 <= status < 300 for status in statuses), f"no input was good: only {statuses}"
