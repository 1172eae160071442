"""Texts of the pages, in English and Chinese, and which one a request gets."""

from collections.abc import Mapping

from aiohttp import web

LANGUAGE_COOKIE = "lang"

ENGLISH = {
    "html_lang": "en",
    "other_lang": "zh",
    "other_html_lang": "zh-Hans",
    "other_name": "中文",
    "login_title": "Log in",
    "login_button": "Log in",
    "register_title": "Create an account",
    "register_button": "Create account",
    "username": "Username",
    "username_hint": "3 to 20 letters, digits or underscores.",
    "password": "Password",
    "password_hint": "8 to 64 characters with a letter and a digit.",
    "no_account": "No account yet?",
    "has_account": "Have an account?",
    "hello": "Hello,",
    "logout": "Log out",
    "your_groups": "Your groups",
    "no_groups": "You are in no group yet.",
    "members": "members",
    "unread": "unread messages",
    "chat_title": "Chat in the terminal",
    "chat_text": "The web app is not built here: make run builds it. Without it, in the folder of Magpie:",
    "api_title": "Build on it",
    "api_text": "Everything the server can do, with examples:",
    "wrong_login": "Username or password is wrong.",
    "bad_username": "Use 3 to 20 letters, digits or underscores.",
    "bad_password": "Use 8 to 64 characters (at most 72 bytes) with at least one letter and one digit.",
    "taken": "This username is taken; choose another.",
    "too_fast": "Too many attempts. Wait a moment, then try again.",
    "busy": "The server is busy. Try again in a moment.",
    "stale": "The page was open for too long. Please send it again.",
}

CHINESE = {
    "html_lang": "zh-Hans",
    "other_lang": "en",
    "other_html_lang": "en",
    "other_name": "English",
    "login_title": "登录",
    "login_button": "登录",
    "register_title": "注册账号",
    "register_button": "注册",
    "username": "用户名",
    "username_hint": "3 到 20 个字母、数字或下划线。",
    "password": "密码",
    "password_hint": "8 到 64 个字符，至少包含一个字母和一个数字。",
    "no_account": "还没有账号？",
    "has_account": "已有账号？",
    "hello": "你好，",
    "logout": "退出登录",
    "your_groups": "我的群组",
    "no_groups": "你还没有加入任何群组。",
    "members": "名成员",
    "unread": "未读消息",
    "chat_title": "在终端聊天",
    "chat_text": "此处尚未构建网页版：请运行 make run。也可以在 Magpie 目录下运行：",
    "api_title": "开发接口",
    "api_text": "服务器的全部接口与示例：",
    "wrong_login": "用户名或密码错误。",
    "bad_username": "请使用 3 到 20 个字母、数字或下划线。",
    "bad_password": "请使用 8 到 64 个字符（不超过 72 字节），至少包含一个字母和一个数字。",
    "taken": "该用户名已被占用，请换一个。",
    "too_fast": "尝试次数过多，请稍候再试。",
    "busy": "服务器繁忙，请稍后再试。",
    "stale": "页面停留时间过长，请重新提交。",
}

TEXTS: Mapping[str, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}


def language_of(request: web.Request) -> str:
    """`?lang=`, else the cookie of an earlier choice, else the browser's first language that we have."""
    wishes: list[str | None] = [request.query.get("lang"), request.cookies.get(LANGUAGE_COOKIE)]
    wishes += [part.split(";")[0].strip()[:2].lower() for part in request.headers.get("Accept-Language", "").split(",")]
    return next((wish for wish in wishes if wish is not None and wish in TEXTS), "en")
