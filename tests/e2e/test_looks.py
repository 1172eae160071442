"""Every page in both languages, light and dark, on a desk and on a phone: accessible, and kept as a picture."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import SHOTS, NewPerson
from tests.e2e.person import DESKTOP, PHONE, Person

SIZES: dict[str, Any] = {"desktop": {"viewport": DESKTOP}, "phone": {"viewport": PHONE, "has_touch": True}}
LOOKS = [
    ("en-US", "light", "desktop"),
    ("en-US", "dark", "phone"),
    ("zh-CN", "light", "phone"),
    ("zh-CN", "dark", "desktop"),
]
"""Any two of language, scheme and size meet in one of them."""
TEXTS = {
    "en-US": {
        "new": "New group", "discover": "Discover", "settings": "Profile and settings", "people": "Members",
        "about": "About this group", "close": "Close", "create": "Create group", "back": "Back to groups",
    },
    "zh-CN": {
        "new": "新建群组", "discover": "发现", "settings": "个人资料与设置", "people": "成员",
        "about": "群组信息", "close": "关闭", "create": "创建群组", "back": "返回群组",
    },
}  # fmt: skip


TOO_WIDE = """
[...document.querySelectorAll("main, section, nav, header, form, ul, li, p, article, button, textarea, input, dialog")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && getComputedStyle(one).position !== "fixed")
  .map((one) => one.outerHTML.slice(0, 100))
"""


async def look(person: Person, name: str) -> None:
    """A picture and the accessibility rules."""
    SHOTS.mkdir(exist_ok=True)
    await person.page.screenshot(path=SHOTS / f"{name}.png")
    wide = await person.page.evaluate(TOO_WIDE)
    person.problems += [f"wider than the screen: {one}" for one in wide]
    await person.check_axe()


@pytest.mark.parametrize(("locale", "scheme", "size"), LOOKS)
async def test_every_page(new_person: NewPerson, locale: str, scheme: str, size: str) -> None:
    name, t = f"{size}-{scheme}-{locale[:2]}", TEXTS[locale]
    ann = await new_person("Ann", registered=False, locale=locale, color_scheme=scheme, **SIZES[size])
    for page in ("login", "register"):
        await ann.page.goto(f"{ann.url}/{page}")
        await look(ann, f"{page}-{name}")
    await ann.register()
    await ann.page.locator(".nothing:visible h2").wait_for()
    await look(ann, f"empty-{name}")
    await ann.button(t["new"]).click()
    await look(ann, f"new-group-{name}")
    await ann.dialog.get_by_role("textbox").fill("Night shift 夜班")
    await ann.button(t["create"]).click()
    await ann.composer.wait_for()
    for text in (
        "Good evening! 大家晚上好",
        "The pump in hall 3 runs again, see https://example.org/log/7",
        "好的,谢谢",
    ):
        await ann.say(text)
        await ann.sees(text)
    await look(ann, f"chat-{name}")
    await ann.button(t["about"]).click()
    await ann.dialog.get_by_role("textbox").nth(1).fill("Whoever leaves last switches the compressor off, please. " * 3)
    await ann.dialog.locator("button[type=submit]").click()
    await ann.dialog.get_by_role("button", name=t["close"], exact=True).click()
    await look(ann, f"announcement-{name}")
    await ann.button(t["people"]).click()
    await expect(ann.page.locator(".members li")).to_have_count(1)
    await look(ann, f"people-{name}")
    await ann.page.locator(".panel").get_by_role("button", name=t["close"], exact=True).click()
    await ann.button(t["about"]).click()
    await look(ann, f"about-{name}")
    await ann.dialog.get_by_role("button", name=t["close"], exact=True).click()
    if size == "phone":
        await ann.button(t["back"]).click()
    await look(ann, f"list-{name}")
    for dialog in ("discover", "settings"):
        await ann.button(t[dialog]).click()
        await ann.page.wait_for_timeout(300)
        await look(ann, f"{dialog}-{name}")
        await ann.page.keyboard.press("Escape")
        await expect(ann.dialog).to_have_count(0)


async def test_looks_can_be_chosen(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.button("Profile and settings").click()
    await ann.dialog.get_by_label("Dark").check()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await ann.page.evaluate(background)
    await ann.page.reload()
    assert await ann.page.evaluate(background) == dark
    await ann.button("Profile and settings").click()
    await ann.dialog.get_by_label("Light").check()
    assert await ann.page.evaluate(background) != dark
    await ann.dialog.get_by_label("中文").click()
    await expect(ann.page.get_by_role("navigation", name="群组")).to_be_visible()
    assert "?" not in ann.page.url


async def test_nothing_moves_by_itself(new_person: NewPerson) -> None:
    """So nobody has to ask for reduced motion: no transition, no animation, no smooth scrolling."""
    moving = """
    [...document.querySelectorAll("*")].filter((one) => {
      const style = getComputedStyle(one);
      return /[1-9]/.test(style.transitionDuration + style.animationDuration) || style.scrollBehavior !== "auto";
    }).map((one) => one.outerHTML.slice(0, 100))
    """
    ann = await new_person("Ann")
    await ann.create_group("Still")
    await ann.say("calm")
    await ann.sees("calm")
    await ann.button("Profile and settings").click()
    assert await ann.page.evaluate(moving) == []
    assert await ann.page.evaluate("document.getAnimations().length") == 0
