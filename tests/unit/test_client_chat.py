"""What the terminal chat shows: nothing that others write reaches the terminal unfiltered, and both languages say everything."""

import string
from io import StringIO
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from app.client.api import Api
from app.client.chat.bottom import Bottom
from app.client.chat.names import Names
from app.client.chat.render import day_line, day_of, group_list, harmless, member_list, message_line
from app.client.chat.texts import TEXTS, Language, Texts, language_of
from app.client.client import Client
from app.client.errors import ConnectionLost, SessionEnded, Unreachable
from app.client.events import StateChanged
from app.client.groups import GroupView
from app.client.models import Group, Member, MemberPresence, Presence, User
from app.errors import ERROR_TYPES, Forbidden, RateLimited
from app.protocol.frames import Message


def shown(renderable: RenderableType, width: int = 60) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def said(body: str) -> Message:
    return Message("1", "7", 1, "5", "id", "text", body, 1_767_225_600_000)


@given(st.text())
def test_nothing_written_by_others_controls_the_terminal(body: str) -> None:
    clean = harmless(body, lines=True)
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in clean)
    assert "\n" not in harmless(body)


def test_escape_sequences_and_turned_text_are_visible_or_gone() -> None:
    line = shown(message_line(said("\x1b[2Jred\u202egnp.exe\x9b1m"), "mallory\x1b]0;title\x07", mine=False))
    assert "\x1b" not in line
    assert "\x9b" not in line
    assert "\u202e" not in line
    assert "red" in line


def test_markup_in_a_message_is_text() -> None:
    assert "[bold]not bold[/bold]" in shown(message_line(said("[bold]not bold[/bold] :smile:"), "eve", mine=False))


def test_long_and_wide_messages_wrap_under_their_beginning() -> None:
    lines = shown(message_line(said("你好" * 30), "bob", mine=False), width=40).rstrip("\n").split("\n")
    assert len(lines) > 1
    assert all(line.startswith(" " * 10) for line in lines[1:])
    assert all(Console(width=40).measure(line).maximum <= 40 for line in lines)


def test_lists_show_what_matters() -> None:
    text = Texts("en")
    views = [
        GroupView(Group("7", "lobby", role="owner"), last_seq=200, read_seq=0),
        GroupView(Group("8", "garden", visibility="invite"), last_seq=3, read_seq=3),
    ]
    first, second = shown(group_list(views, "7", text)).rstrip("\n").split("\n")
    assert first.split() == ["*", "1", "lobby", "99+", "new", "open", "owner"]
    assert second.split() == ["2", "garden", "by", "invitation", "member"]
    members = [Member(User("5", "bob", "Bob"), "admin", muted_until=5_000), Member(User("6", "eve"), "member", 1)]
    presence = Presence(1, 1_000, [MemberPresence("5", "offline", 60_000), MemberPresence("6", "online")])
    bob, eve = shown(member_list(members, presence, text, now_ms=2_000), 120).rstrip("\n").split("\n")
    assert "muted until" in bob
    assert "muted until" not in eve
    assert "last seen 1970-01-01" in bob
    assert eve.rstrip().endswith("online")
    assert "online" not in shown(member_list(members, None, text, now_ms=2_000))


@pytest.mark.parametrize(("language", "expected"), [("en", "2026"), ("zh", "2026年1月1日")])
def test_days_are_written_as_the_language_does(language: Language, expected: str) -> None:
    day = day_of(1_767_225_600_000 + 43_200_000)
    assert expected in shown(day_line(day, Texts(language)))


def test_both_languages_fill_in_the_same_values() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert {key for key, (english, chinese) in TEXTS.items() if fields(english) != fields(chinese)} == set()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_error_is_a_sentence(language: Language) -> None:
    text = Texts(language)
    for kind in ERROR_TYPES.values():
        assert text.error(kind("something is wrong"))
    for error in (SessionEnded(4501, "revoked"), ConnectionLost("x"), Unreachable("y")):
        assert text.error(error)
    assert text.error(Forbidden("you are muted")).endswith("you are muted" if language == "zh" else "You are muted.")
    assert "3 s" in Texts("en").error(RateLimited("slow down", retry_after_ms=2_900))


def test_the_language_is_the_terminals() -> None:
    assert language_of({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert language_of({"LC_ALL": "en_GB.UTF-8", "LANG": "zh_CN.UTF-8"}) == "en"
    assert language_of({}) == "en"


class Somebody:
    """As much of a client as the status line looks at."""

    def __init__(self, *groups: GroupView) -> None:
        self.groups = list(groups)


def status(bottom: Bottom, now: float) -> str:
    return "".join(fragment[1] for fragment in bottom.line(None, now)).strip()


def test_the_status_line_says_what_is_going_on() -> None:
    groups = [GroupView(Group(str(n), f"g{n}"), last_seq=n, read_seq=0) for n in range(6)]
    names = Names(cast(Api, None), User("5", "alice", "Alice"))
    names.learn(User("6", "bob", "Bob\x1b"))
    bottom = Bottom(cast(Client, Somebody(*groups)), names, "Alice", Texts("en"))
    assert status(bottom, 0) == "● online · Alice · g1 1 · g2 2 · g3 3 · g4 4 · +1"
    bottom = Bottom(cast(Client, Somebody()), names, "Alice", Texts("en"))
    bottom.sending = 2
    bottom.on_typing("6", 10)
    bottom.on_state(StateChanged("waiting", "gone", 4.2), 10)
    assert status(bottom, 11) == "● offline, trying again in 3 s · Alice · sending 2 · Bob\ufffd is typing…"
    bottom.on_typing("7", 11)
    assert status(bottom, 12).endswith("2 people are typing…")
    assert status(bottom, 60).endswith("in 0 s · Alice · sending 2")
