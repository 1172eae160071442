"""What the chat says, in English and Chinese."""

import os
from collections.abc import Mapping
from typing import Literal

from app.client.errors import ClientError, ConnectionLost, SessionEnded, Unreachable
from app.errors import AppError
from app.protocol.frames import REPLACED

Language = Literal["en", "zh"]

WEEKDAYS: Mapping[Language, tuple[str, ...]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}

TEXTS: Mapping[str, tuple[str, str]] = {
    # Before the chat
    "no_terminal": (
        "The chat needs a terminal; start it in one, without redirecting its input or output.",
        "聊天程序需要在终端中运行，请不要重定向输入或输出。",
    ),
    "no_server": (
        "No Magpie server answers at {url}. Start one with `make run` in another terminal, or name another one with --url.",
        "{url} 没有 Magpie 服务器响应。请在另一个终端运行 `make run` 启动服务器，或用 --url 指定其他地址。",
    ),
    "bad_url": ("{url} is not an address; use for example http://localhost:8080.", "{url} 不是有效地址，例如 http://localhost:8080。"),
    "welcome": ("Magpie at {url}", "Magpie · {url}"),
    "login_or_register": ("[l]og in or [r]egister? ", "[l] 登录，[r] 注册："),
    "ask_user": ("User name: ", "用户名："),
    "ask_password": ("Password: ", "密码："),
    "ask_new_password": ("Password (8 to 64, a letter and a digit): ", "密码（8 到 64 位，含字母和数字）："),
    "ask_again": ("The same again: ", "再次输入："),
    "not_the_same": ("The two passwords differ.", "两次输入的密码不一致。"),
    "bye": ("Bye.", "再见。"),
    "leaving": ("Waiting up to {seconds} s for {count} messages to be sent …", "正在等待 {count} 条消息发送，最多 {seconds} 秒……"),
    # Groups
    "groups": ("Your groups", "我的群组"),
    "no_groups": (
        "You are in no group yet: /create NAME makes one, /discover shows open ones, /join NAME joins one.",
        "你还没有加入群组：/create 群名 创建，/discover 查看公开群组，/join 群名 加入。",
    ),
    "open_hint": ("/1 or /open NAME opens a group, /help lists the commands.", "/1 或 /open 群名 打开群组，/help 列出全部命令。"),
    "no_open_group": ("No group is open: /1 or /open NAME opens one.", "当前没有打开群组：用 /1 或 /open 群名 打开。"),
    "which_group": ("You are in no group called {name}; /groups lists yours.", "你不在名为 {name} 的群组中，/groups 可列出你的群组。"),
    "several": ("Several groups are called {name}; take one by its number:", "有多个群组名为 {name}，请用编号选择："),
    "opened": ("{name} · {count} members", "{name} · {count} 位成员"),
    "opened_one": ("{name} · only you", "{name} · 只有你一人"),
    "announcement": ("Announcement: {text}", "公告：{text}"),
    "empty": ("No messages yet. Write the first one.", "还没有消息，来写第一条吧。"),
    "older": ("/more shows older messages.", "/more 查看更早的消息。"),
    "no_older": ("There is nothing older.", "没有更早的消息了。"),
    "new_from_here": ("new", "新消息"),
    "unread": ("{count} new", "{count} 条新消息"),
    "visibility_open": ("open", "公开"),
    "visibility_invite": ("by invitation", "邀请制"),
    "role_owner": ("owner", "群主"),
    "role_admin": ("admin", "管理员"),
    "role_member": ("member", "成员"),
    "muted_until": ("muted until {time}", "禁言至 {time}"),
    "members": ("Members of {name}", "{name} 的成员"),
    "members_online": ("Members of {name}, {count} online", "{name} 的成员，{count} 人在线"),
    "present": ("online", "在线"),
    "last_seen": ("last seen {time}", "最后在线 {time}"),
    "more_members": ("… and more.", "……还有更多。"),
    "discover": ("Open groups; /join NAME joins one", "公开群组，用 /join 群名 加入"),
    "nothing_found": ("No open group found.", "没有找到公开群组。"),
    "not_found_open": (
        "No open group is called {name}; /discover lists them. For an invitation use /join ID CODE.",
        "没有名为 {name} 的公开群组，/discover 可列出。收到邀请时用 /join 群号 邀请码。",
    ),
    "invited": ("Whoever types this joins {name}, until {time}:", "在 {time} 之前，输入以下命令即可加入 {name}："),
    "created": ("You created {name}; /invite lets others in.", "群组 {name} 已创建，用 /invite 邀请他人。"),
    "created_open": ("You created {name}; others join it with /join {name}", "群组 {name} 已创建，其他人可用 /join {name} 加入。"),
    "left": ("You left {name}.", "你已退出 {name}。"),
    "left_kicked": ("You were removed from {name}.", "你已被移出 {name}。"),
    "left_banned": ("You were banned from {name}.", "你已被 {name} 封禁。"),
    "left_disbanded": ("{name} was disbanded.", "{name} 已解散。"),
    "left_gone": ("You are not a member of {name} any more.", "你已不是 {name} 的成员。"),
    "member_joined": ("{name} joined", "{name} 加入了群组"),
    "member_left": ("{name} left", "{name} 退出了群组"),
    "member_kicked": ("{name} was removed", "{name} 被移出群组"),
    "member_banned": ("{name} was banned", "{name} 被封禁"),
    "member_muted": ("{name} was muted until {time}", "{name} 被禁言至 {time}"),
    "member_unmuted": ("{name} may write again", "{name} 可以发言了"),
    "member_role": ("{name} is {role} now", "{name} 现在是{role}"),
    "group_updated": ("The group is now {name}.", "群组信息已更新：{name}。"),
    "restored": ("The server was restored from a backup; the latest messages may be missing.", "服务器已从备份恢复，最近的消息可能缺失。"),
    "done": ("Done.", "完成。"),
    # Status line
    "online": ("online", "已连接"),
    "connecting": ("connecting…", "正在连接…"),
    "waiting": ("offline, trying again in {seconds} s", "已断开，{seconds} 秒后重试"),
    "ended": ("ended", "已结束"),
    "sending": ("sending {count}", "正在发送 {count} 条"),
    "typing_one": ("{name} is typing…", "{name} 正在输入…"),
    "typing_many": ("{count} people are typing…", "{count} 人正在输入…"),
    # Errors
    "unknown_command": ("There is no command /{name}; /help lists them.", "没有命令 /{name}，/help 可列出全部命令。"),
    "usage": ("Use it like this: {usage}", "用法：{usage}"),
    "no_member": ("{name} is no member of this group; /members lists them.", "{name} 不是本群成员，/members 可列出成员。"),
    "not_sent": ("Not sent: {reason} Your text was: {text}", "未发送：{reason} 原文：{text}"),
    "maybe_sent": (
        "It is not known whether this was sent: {reason} Your text was: {text}",
        "不确定是否已发送：{reason} 原文：{text}",
    ),
    "no_answer_yet": ("there was no answer yet.", "尚未收到答复。"),
    "wait": ("Try again in {seconds} s.", "请在 {seconds} 秒后重试。"),
    "error_bad_request": ("{message}", "输入无效：{message}"),
    "error_unauthorized": ("{message}", "身份验证失败：{message}"),
    "error_forbidden": ("{message}", "没有权限：{message}"),
    "error_not_found": ("{message}", "没有找到：{message}"),
    "error_conflict": ("{message}", "冲突：{message}"),
    "error_rejected": ("{message}", "消息被拒绝：{message}"),
    "error_rate_limited": ("Too fast: {message}", "操作太快：{message}"),
    "error_busy": ("{message}", "服务器繁忙：{message}"),
    "error_timeout": ("{message}", "服务器没有及时响应：{message}"),
    "error_internal": ("{message}", "服务器出错：{message}"),
    "error_unreachable": ("The server cannot be reached.", "无法连接服务器。"),
    "error_lost": ("The connection was lost.", "连接已断开。"),
    "error_ended": (
        "The server ended the session: {reason}. Start the chat again to log in.",
        "会话已被服务器结束：{reason}。请重新启动并登录。",
    ),
    "error_replaced": (
        "You are connected from somewhere else now, and only the newest connection stays. Start the chat again to use it here.",
        "你已在其他地方连接，只保留最新的连接。如需在此继续，请重新启动。",
    ),
    # Help: one line per command
    "help": ("Commands", "命令"),
    "help_text": ("Everything else you type is sent to the open group; a line that begins with // is sent with one slash.",
                  "其他输入都会发送到当前群组；以 // 开头的内容会以单个 / 发送。"),
    "help_help": ("this list", "显示本列表"),
    "help_groups": ("your groups with what is new", "我的群组与未读数"),
    "help_open": ("open a group by number or name (or just /1)", "按编号或名称打开群组（也可直接输入 /1）"),
    "help_more": ("older messages", "更早的消息"),
    "help_discover": ("open groups of this server", "查看公开群组"),
    "help_create": ("make a group; with a leading ! only by invitation", "创建群组；名称前加 ! 则为邀请制"),
    "help_join": ("join an open group by name, or another with its code", "按名称加入公开群组，或凭邀请码加入"),
    "help_invite": ("a code that lets others in", "生成邀请码"),
    "help_members": ("who is in the open group", "当前群组成员"),
    "help_leave": ("leave the open group", "退出当前群组"),
    "help_announce": ("set the announcement (admins)", "设置公告（管理员）"),
    "help_kick": ("remove a member (admins)", "移出成员（管理员）"),
    "help_ban": ("remove and keep out (admins)", "封禁成员（管理员）"),
    "help_mute": ("mute a member for some minutes (admins)", "禁言若干分钟（管理员）"),
    "help_unmute": ("let a muted member write again (admins)", "解除禁言（管理员）"),
    "help_admin": ("make a member an admin (owner)", "设为管理员（群主）"),
    "help_disband": ("end the open group for everybody (owner)", "解散当前群组（群主）"),
    "help_quit": ("leave the chat (also Ctrl+D)", "退出程序（或 Ctrl+D）"),
    "usage_none": ("", ""),
    "usage_open": ("NUMBER | NAME", "编号 | 群名"),
    "usage_discover": ("[PART OF A NAME]", "[关键字]"),
    "usage_create": ("[!]NAME", "[!]群名"),
    "usage_join": ("[NAME | ID [CODE]]", "[群名 | 群号 [邀请码]]"),
    "usage_announce": ("[TEXT]", "[内容]"),
    "usage_user": ("USER", "用户名"),
    "usage_mute": ("USER [MINUTES]", "用户名 [分钟]"),
    "usage_disband": ("NAME", "群名"),
    "confirm_disband": ("To end {name} for everybody type: /disband {name}", "确认解散请输入：/disband {name}"),
}  # fmt: skip


def language_of(environ: Mapping[str, str] = os.environ) -> Language:
    """As the terminal's locale says: LC_ALL, LC_MESSAGES, LANG, in this order."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


class Texts:
    """All texts in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._column = 1 if language == "zh" else 0

    def __call__(self, key: str, **values: object) -> str:
        """The text called `key`, with `values` filled in."""
        return TEXTS[key][self._column].format(**values)

    def __contains__(self, key: str) -> bool:
        """Whether there is a text of this name."""
        return key in TEXTS

    def error(self, error: Exception) -> str:
        """One sentence for a failure."""
        if isinstance(error, AppError):
            message = _sentence(error.message) if self.language == "en" else error.message
            text = self(f"error_{error.code}", message=message)
            wait_ms = error.retry_after_ms
            return text if not wait_ms else f"{text} {self('wait', seconds=max(1, round(wait_ms / 1000)))}"
        if isinstance(error, SessionEnded):
            if error.reason == REPLACED:
                return self("error_replaced")
            return self("error_ended", reason=error.reason)
        if isinstance(error, ConnectionLost):
            return self("error_lost")
        if isinstance(error, Unreachable | ClientError):
            return self("error_unreachable")
        return str(error)


def _sentence(message: str) -> str:
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else f"{message}."
