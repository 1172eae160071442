"""From registering to searching without a mouse: nothing here clicks, focuses or fills by script."""

from playwright.async_api import expect

from tests.e2e.conftest import NewPerson
from tests.e2e.person import PASSWORD, Person

NAME_OF_FOCUSED = """
(() => {
  const one = document.activeElement;
  return one === document.body ? "" : (one.ariaLabel ?? one.labels?.[0]?.innerText ?? one.innerText);
})()
"""
MOST_TABS = 60


class Keyboard:
    """A person's hands on the keys."""

    def __init__(self, person: Person) -> None:
        self._page = person.page
        self.press = person.page.keyboard.press
        self.type = person.page.keyboard.type

    async def tab_to(self, name: str, *, backwards: bool = False) -> None:
        """Tab until something with `name` in its name has the focus."""
        passed: list[str] = []
        for _ in range(MOST_TABS):
            await self.press("Shift+Tab" if backwards else "Tab")
            focused = str(await self._page.evaluate(NAME_OF_FOCUSED))
            if name in focused:
                return
            passed.append(focused)
        raise AssertionError(f"{name} is not reached with Tab, only {passed}")

    async def choose(self, name: str) -> None:
        """Go to something and press it."""
        await self.tab_to(name)
        await self.press("Enter")


async def test_with_the_keyboard_alone(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann", registered=False), await new_person("Bob")
    keys = Keyboard(ann)
    await ann.page.goto(ann.url + "/register")
    await expect(ann.page.locator("#username")).to_be_focused()
    await keys.type(ann.username)
    await keys.tab_to("Password")
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await ann.connected()

    for name in ("First", "Second"):
        await keys.choose("New group")
        await expect(ann.dialog.get_by_label("Name")).to_be_focused()
        await keys.type(name)
        await keys.choose("Create group")
        await expect(ann.page.get_by_role("textbox", name=f"Message {name}")).to_be_focused()
        await keys.type(f"said in {name}")
        await keys.press("Enter")
        await ann.sees(f"said in {name}")

    await keys.choose("About this group")
    await keys.choose("Invite link")
    link = await ann.dialog.get_by_label("Invite link").input_value()
    await keys.press("Escape")
    # The focus is back where it came from.
    await expect(ann.button("About this group")).to_be_focused()
    await bob.join(link)

    await keys.tab_to("Members", backwards=True)
    await keys.press("Enter")
    await keys.choose(f"Options for {bob.username}")
    await keys.choose("1 hour")
    await expect(ann.dialog).to_have_count(0)
    await expect(bob.page.get_by_text("You are muted until")).to_be_visible()
    await keys.press("Enter")
    await keys.choose("Unmute")
    await expect(ann.dialog).to_have_count(0)
    await keys.press("Enter")
    await keys.choose("Remove from group")
    await keys.choose("Cancel")
    await keys.press("Escape")
    await expect(ann.dialog).to_have_count(0)
    await bob.say("hello")
    await ann.sees("hello")

    # Search, to the place where it was said in the other group, and its list from there with the arrows.
    await keys.press("Control+k")
    await keys.type("said")
    await expect(ann.page.locator(".results li")).to_have_count(2)
    await keys.choose("said in First")
    await expect(ann.page.locator("article.found")).to_contain_text("said in First")
    await keys.press("Control+k")
    await expect(ann.page.get_by_role("searchbox", name="Search messages")).to_be_focused()
    await keys.press("Escape")
    await expect(ann.page.get_by_role("searchbox", name="Search messages")).to_have_count(0)
    await keys.tab_to("Second")
    await keys.press("ArrowDown")
    assert "First" in await ann.page.evaluate(NAME_OF_FOCUSED)
    await keys.press("ArrowUp")
    await keys.press("Enter")
    await ann.sees("hello")

    await keys.tab_to("Messages")
    await keys.press("Home")
    await keys.press("End")
    await keys.tab_to("Profile and settings", backwards=True)
    await keys.press("Enter")
    await ann.dialog.wait_for()
    await keys.choose("Log out")
    await expect(ann.page.locator("#username")).to_be_focused()
