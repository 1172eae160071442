"""What tests about groups keep asking."""

from typing import Any

from tests.running import User


async def names(user: User, **params: Any) -> list[str]:
    """Names of the open groups a user finds."""
    return [group["name"] for group in (await user.ok("GET", "/groups/discover", **params))["items"]]


async def mine(user: User, group: str) -> dict[str, Any]:
    """A group as its member sees it."""
    found: dict[str, Any] = await user.ok("GET", f"/groups/{group}")
    return found


async def member(user: User, group: str, who: User) -> dict[str, Any]:
    """A member as another one sees them."""
    found: list[dict[str, Any]] = (await user.ok("GET", f"/groups/{group}/members"))["items"]
    return next(member for member in found if member["user"]["id"] == who.id)
