"""Random people do random things to a group, over HTTP; a small model says what each of them must get and see."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.running import User, serving, settings_for

PEOPLE = 4
RANK = {"member": 1, "admin": 2, "owner": 3}
person = st.integers(0, PEOPLE - 1)


@dataclass
class Place:
    """A membership."""

    role: str = "member"
    muted: bool = False
    joined_seq: int = 0
    last_read_seq: int = 0
    last_sent_seq: int = 0


@dataclass
class Model:
    """What a group must be."""

    visibility: str
    version: int = 1
    places: dict[int, Place] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)
    codes: dict[str, int] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    senders: list[int] = field(default_factory=list)

    @property
    def last_seq(self) -> int:
        return len(self.bodies)

    def remove(self, who: int) -> None:
        del self.places[who]
        self.forget_codes(who)

    def forget_codes(self, who: int) -> None:
        self.codes = {code: maker for code, maker in self.codes.items() if maker != who}

    def refusal(self, actor: int, target: int | None = None, *, least: str = "member", member_only: bool = True) -> int:
        """The status that refuses `actor` something (to be done to `target`), 0 when they may."""
        place = self.places.get(actor)
        if place is None:
            return 404
        if target is not None and target not in self.places and member_only:
            # Who may not see that it cannot be done is told so first, where the roles alone decide.
            return 404
        if RANK[place.role] < RANK[least]:
            return 403
        if target in self.places and RANK[place.role] <= RANK[self.places[target].role]:
            return 403
        return 0


class GroupMachine(RuleBasedStateMachine):
    """One group at a time; `runner` and `people` are set by the test."""

    runner: asyncio.Runner
    people: list[User]

    @initialize(visibility=st.sampled_from(["open", "invite"]))
    def make(self, visibility: str) -> None:
        self.group: str = self.runner.run(self.people[0].group(visibility=visibility))
        self.model = Model(visibility, places={0: Place("owner")})
        self.sent = 0

    def call(self, who: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.runner.run(self.people[who].call(method, f"/groups/{self.group}{path}", body))

    def expect(self, refused: int, status: int, answer: Any, success: int) -> bool:
        """Compare a status; True when the thing was done."""
        assert status == (refused or success), answer
        return not refused

    @rule(who=person, use_code=st.booleans())
    def join(self, who: int, use_code: bool) -> None:
        code = next(iter(self.model.codes), None) if use_code else None
        status, answer = self.call(who, "POST", "/join", {"invite_code": code} if code else {})
        refused = 0
        if who not in self.model.places:
            if self.model.visibility == "invite" and code is None:
                refused = 404
            elif who in self.model.banned:
                refused = 403
        if self.expect(refused, status, answer, 200) and who not in self.model.places:
            last = self.model.last_seq
            own = [seq for seq, sender in enumerate(self.model.senders, 1) if sender == who]
            self.model.places[who] = Place("member", False, last, last, max(own, default=0))
            self.model.version += 1

    @rule(who=person)
    def leave(self, who: int) -> None:
        status, answer = self.call(who, "POST", "/leave")
        refused = self.model.refusal(who)
        if not refused and self.model.places[who].role == "owner":
            refused = 409
        if self.expect(refused, status, answer, 204):
            self.model.remove(who)
            self.model.version += 1

    @rule(who=person)
    def invite(self, who: int) -> None:
        status, answer = self.call(who, "POST", "/invite")
        least = "member" if self.model.visibility == "open" else "admin"
        if self.expect(self.model.refusal(who, least=least), status, answer, 200):
            self.model.codes[answer["code"]] = who

    @rule(who=person, whom=person)
    def kick(self, who: int, whom: int) -> None:
        status, answer = self.call(who, "DELETE", f"/members/{self.people[whom].id}")
        if self.expect(self.model.refusal(who, whom, least="admin"), status, answer, 204):
            self.model.remove(whom)
            self.model.version += 1

    @rule(who=person, whom=person)
    def ban(self, who: int, whom: int) -> None:
        status, answer = self.call(who, "PUT", f"/bans/{self.people[whom].id}")
        refused = self.model.refusal(who, whom, least="admin", member_only=False)
        if self.expect(refused, status, answer, 204):
            self.model.banned.add(whom)
            if whom in self.model.places:
                self.model.remove(whom)
                self.model.version += 1

    @rule(who=person, whom=person)
    def unban(self, who: int, whom: int) -> None:
        status, answer = self.call(who, "DELETE", f"/bans/{self.people[whom].id}")
        if self.expect(self.model.refusal(who, least="admin"), status, answer, 204):
            self.model.banned.discard(whom)

    @rule(who=person, whom=person, muted=st.booleans())
    def mute(self, who: int, whom: int, muted: bool) -> None:
        until = 4_000_000_000_000 if muted else None
        status, answer = self.call(who, "PATCH", f"/members/{self.people[whom].id}", {"muted_until": until})
        if self.expect(self.model.refusal(who, whom, least="admin"), status, answer, 200):
            self.model.version += self.model.places[whom].muted != muted
            self.model.places[whom].muted = muted

    @rule(who=person, whom=person, role=st.sampled_from(["admin", "member"]))
    def give_role(self, who: int, whom: int, role: str) -> None:
        status, answer = self.call(who, "PATCH", f"/members/{self.people[whom].id}", {"role": role})
        if self.expect(self.model.refusal(who, whom, least="owner"), status, answer, 200):
            place = self.model.places[whom]
            self.model.version += place.role != role
            if place.role != role and role == "member":
                self.model.forget_codes(whom)
            place.role = role

    @rule(who=person, whom=person)
    def transfer(self, who: int, whom: int) -> None:
        status, answer = self.call(who, "POST", "/transfer", {"user_id": self.people[whom].id})
        refused = self.model.refusal(who, least="owner")
        if not refused and who == whom:
            refused = 409
        if not refused and whom not in self.model.places:
            refused = 404
        if self.expect(refused, status, answer, 200):
            self.model.places[who].role = "admin"
            self.model.places[whom].role, self.model.places[whom].muted = "owner", False
            self.model.version += 1

    @rule(who=person)
    def send(self, who: int) -> None:
        self.sent += 1
        body = f"message {self.sent}"
        status, answer = self.runner.run(self.people[who].post(self.group, body))
        refused = self.model.refusal(who)
        if not refused and self.model.places[who].muted:
            refused = 403
        if self.expect(refused, status, answer, 201):
            self.model.bodies.append(body)
            self.model.senders.append(who)
            assert answer["seq"] == self.model.last_seq
            self.model.places[who].last_sent_seq = self.model.last_seq

    @rule(who=person, back=st.integers(-1, 3))
    def read(self, who: int, back: int) -> None:
        seq = max(0, self.model.last_seq - back)
        status, answer = self.call(who, "PUT", "/read", {"seq": seq})
        if self.expect(self.model.refusal(who), status, answer, 204):
            place = self.model.places[who]
            place.last_read_seq = max(place.last_read_seq, min(seq, self.model.last_seq))

    @rule(who=person, text=st.sampled_from(["a", "b"]))
    def announce(self, who: int, text: str) -> None:
        before = self.call(0, "GET", "")[1] if 0 in self.model.places else None
        status, answer = self.call(who, "PATCH", "", {"announcement": text})
        if self.expect(self.model.refusal(who, least="admin"), status, answer, 200):
            assert answer["announcement"] == text
            assert before is None or answer["version"] == self.model.version + (before["announcement"] != text)
            self.model.version = answer["version"]

    @invariant()
    def everybody_sees_what_they_must(self) -> None:
        self.runner.run(self.check())

    async def check(self) -> None:
        model = self.model
        owner = next(who for who, place in model.places.items() if place.role == "owner")
        members = {self.people[who].id: (place.role, place.muted) for who, place in model.places.items()}
        for who, user in enumerate(self.people):
            place = model.places.get(who)
            listed = [g for g in (await user.ok("GET", "/groups", limit=1000))["items"] if g["id"] == self.group]
            if place is None:
                assert listed == []
                assert (await user.call("GET", f"/groups/{self.group}/messages"))[0] == 404
                continue
            (group,) = listed
            unread = max(0, model.last_seq - max(place.last_read_seq, place.joined_seq, place.last_sent_seq))
            assert {
                key: group[key]
                for key in ("owner_id", "member_count", "version", "role", "last_seq", "last_read_seq", "unread")
            } == {
                "owner_id": self.people[owner].id,
                "member_count": len(model.places),
                "version": model.version,
                "role": place.role,
                "last_seq": model.last_seq,
                "last_read_seq": place.last_read_seq,
                "unread": unread,
            }
            assert (group["muted_until"] is not None) == place.muted
            if who == owner:
                items = (await user.ok("GET", f"/groups/{self.group}/members"))["items"]
                assert {m["user"]["id"]: (m["role"], m["muted_until"] is not None) for m in items} == members
                history = await user.history(self.group, after_seq=0, limit=100)
                assert [item["body"] for item in history] == model.bodies


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_groups_behave_like_the_model(dsn: str, redis_url: str) -> None:
    with asyncio.Runner() as runner:
        serving_now = serving(settings_for(dsn, redis_url, groups={"max_groups_per_user": 1000}))
        server = runner.run(serving_now.__aenter__())
        try:
            GroupMachine.runner, GroupMachine.people = runner, runner.run(server.users(PEOPLE))
            run_state_machine_as_test(
                GroupMachine,
                settings=settings(
                    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(serving_now.__aexit__(None, None, None))
