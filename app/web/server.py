"""HTTP operations on an aiohttp application: credential, limit, input, handler, answer."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.errors import BadRequest, Forbidden, Unauthorized
from app.protocol.endpoint import Call, Endpoint, Handler, Principal, Raw, endpoints_of
from app.web.body import read_body
from app.web.credentials import Caller, Credentials
from app.web.limits import RequestLimits
from app.web.middlewares import CLIENT_IP, REQUEST_ID

PREFIX = "/api/v1"
DETAILS_MAX = 20


class Api:
    """Serves handler objects below `/api/v1`."""

    def __init__(self, credentials: Credentials, limits: RequestLimits, *, body_timeout_s: float) -> None:
        self._credentials = credentials
        self._limits = limits
        self._body_timeout_s = body_timeout_s

    def routes(self, handlers: Sequence[object]) -> list[web.RouteDef]:
        """A route for each operation of each handlers object."""
        return [
            web.route(described.method, PREFIX + described.path, self._route(described, handler))
            for one in handlers
            for described, handler in endpoints_of(one)
        ]

    def _route(self, described: Endpoint, handler: Handler) -> Any:
        path_types = {name: TypeAdapter(hint) for name, hint in described.path_params.items()}

        async def serve(request: web.Request) -> web.StreamResponse:
            caller = await self._admit(request, described)
            call = Call(request[REQUEST_ID], request[CLIENT_IP], request.host)
            if caller is not None:
                call.principal, call.csrf_token = caller.principal, caller.csrf_token
            arguments: dict[str, Any] = {
                name: _checked(adapter, request.match_info[name], name) for name, adapter in path_types.items()
            }
            if described.query is not None:
                arguments["query"] = _query(described.query, request)
            elif request.query:
                raise BadRequest("this address takes no query parameters")
            if described.body is not None:
                arguments["body"] = await self._body(described.body, request)
            return _answer(await handler(call, **arguments), call.status or described.status)

        return serve

    async def _admit(self, request: web.Request, described: Endpoint) -> Caller | None:
        if not described.auth:
            await self._limits.check_address(described.limit, request[CLIENT_IP])
            return None
        try:
            caller = await self._credentials.of_call(request)
        except Unauthorized:
            await self._limits.check_address("api", request[CLIENT_IP])
            raise
        await self._limits.check_user(described.limit, caller.principal.user_id)
        return caller

    async def admit_socket(self, request: web.Request) -> Principal:
        """Who opens a WebSocket. Raises Unauthorized, Forbidden, RateLimited, and Busy when a store is away."""
        try:
            return await self._credentials.of_socket(request)
        except (Unauthorized, Forbidden):
            await self._limits.check_address("api", request[CLIENT_IP])
            raise

    async def _body(self, model: type[BaseModel], request: web.Request) -> BaseModel:
        data = await read_body(request, self._body_timeout_s)
        if not data:
            data = b"{}"
        elif request.content_type != "application/json":
            raise BadRequest("send the body as application/json")
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise _bad(error) from None


def _query(model: type[BaseModel], request: web.Request) -> BaseModel:
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise BadRequest(f"query parameter {name!r} is given twice")
        values[name] = value
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise _bad(error) from None


def _checked(adapter: TypeAdapter[Any], value: str, name: str) -> Any:
    try:
        return adapter.validate_strings(value)
    except ValidationError:
        raise BadRequest(f"{name} in the address is not valid", details={"field": name}) from None


def _bad(error: ValidationError) -> BadRequest:
    """Names the fields and what is wrong with them, never their values: one may be a password."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:DETAILS_MAX]
    details = [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in found]
    first = details[0]
    message = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
    return BadRequest(message[:300], details={"fields": details})


def _answer(result: object, status: int) -> web.Response:
    if result is None:
        return web.Response(status=204)
    if isinstance(result, Raw):
        return web.Response(body=result.json, status=status, content_type="application/json", charset="utf-8")
    if isinstance(result, BaseModel):
        text = result.model_dump_json()
        return web.Response(text=text, status=status, content_type="application/json")
    raise TypeError(f"a handler returned {type(result).__name__}")
