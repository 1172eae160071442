"""A person sees who else is there, and since when who is not."""

from playwright.async_api import expect

from tests.e2e.conftest import SHOTS, NewPerson
from tests.e2e.person import PHONE


async def test_members_see_each_other_come_and_go(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    bob = await new_person("Bob", viewport=PHONE, locale="zh-CN", color_scheme="dark")
    cem = await new_person("Cem")
    await ann.create_group("Who is there")
    link = await ann.invite_link()
    await bob.join(link, "加入")
    await cem.join(link)
    head = ann.page.locator(".chat header")
    await expect(head).to_contain_text("3 members · 3 online")
    await ann.button("Members").click()
    row = ann.page.locator(".members li")
    await expect(row.filter(has_text="@Cem").locator(".avatar i")).to_have_count(1)
    await expect(row.filter(has_text="@Cem")).to_contain_text("online")
    # Loaded again: nobody is told of that, and Cem reads it all anew.
    await cem.page.reload()
    await expect(cem.page.locator(".chat header")).to_contain_text("3 online")
    await expect(head).to_contain_text("3 online")
    await cem.page.goto("about:blank")
    await expect(head).to_contain_text("2 online", timeout=20_000)
    gone = row.filter(has_text="@Cem")
    await expect(gone).to_contain_text("last seen")
    await expect(gone.locator(".avatar i")).to_have_count(0)
    await ann.check_axe()
    await bob.button("成员").click()
    await expect(bob.page.locator(".panel .members li").filter(has_text="@Cem")).to_contain_text("最后在线")
    await bob.check_axe()
    for person, scheme in ((ann, "light"), (bob, "dark")):
        await person.shot(SHOTS / f"presence-{person.name}-{scheme}.png")
