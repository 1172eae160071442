/** The page starts: one store, one shell, and what follows the browser's own events. */
import { render } from "preact";
import { createHttp } from "./api/client";
import { explain, t } from "./i18n";
import { Store } from "./store/store";
import "./style/index.css";
import { App } from "./ui/app";
import { Shell, ShellProvider } from "./ui/context";
import { notify, startTitle } from "./ui/notify";
import { route } from "./ui/route";
import { startTheme } from "./ui/theme";

const RETRY_MS = 3_000;

/** The address behind `#` stays through the login pages. */
function toLogin(): void {
  if (!leaving) location.assign(`/login${location.hash}`);
  leaving = true;
}
let leaving = false;

const store = new Store(createHttp(toLogin), toLogin, () => location.reload());
const shell = new Shell(store);
const LEFT = { kicked: t.kickedGroup, banned: t.bannedGroup, disbanded: t.disbandedGroup } as const;

store.onNotice = (notice) => {
  if (notice.type === "left") {
    const text = LEFT[notice.reason as keyof typeof LEFT] ?? t.kickedGroup;
    shell.toast(text(notice.group.name));
  } else {
    const { group, message } = notice;
    notify(group.id, group.name, store.people.users.value.get(message.sender_id)?.display_name ?? "", message.body);
  }
};

async function start(): Promise<void> {
  for (;;) {
    try {
      await store.start(route.value.name === "group" ? route.value.groupId : null);
      return;
    } catch (error) {
      shell.toast(explain(error));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

startTheme();
startTitle(store);
addEventListener("online", () => store.wake());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) store.wake();
});
void start();

const root = document.getElementById("app");
if (root !== null) {
  render(
    <ShellProvider value={shell}>
      <App />
    </ShellProvider>,
    root,
  );
}
