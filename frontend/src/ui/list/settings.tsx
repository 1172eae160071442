/** The own name, and how the page looks and behaves. */
import { useState } from "preact/hooks";
import { languages, t } from "../../i18n";
import { isBlank } from "../blank";
import { useShell } from "../context";
import { Button } from "../kit/button";
import { Dialog, Failure, useAction } from "../kit/dialog";
import { notifications } from "../notify";
import { type Theme, theme } from "../theme";

const NAME_MAX = 40;
const THEMES: readonly Theme[] = ["auto", "light", "dark"];

export function Settings({ onClose }: { readonly onClose: () => void }) {
  const shell = useShell();
  const { store } = shell;
  const me = store.me.value;
  const [name, setName] = useState(me.display_name);
  const { busy, error, run } = useAction();
  async function save(): Promise<void> {
    const { client, ask } = store.http;
    store.rename(await ask(client.PATCH("/api/v1/me", { body: { display_name: name } })));
    shell.toast(t.saved);
  }
  return (
    <Dialog title={t.settings} onClose={onClose}>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          void run(save);
        }}
      >
        <label>
          {t.displayName} <small>@{me.username}</small>
          <input value={name} maxLength={NAME_MAX} required onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <Button kind="primary" type="submit" disabled={busy || isBlank(name) || name === me.display_name}>
          {t.save}
        </Button>
      </form>
      <Failure text={error} />
      <fieldset>
        <legend>{t.theme}</legend>
        {THEMES.map((one) => (
          <label class="choice" key={one}>
            <input
              type="radio"
              name="theme"
              checked={theme.value === one}
              onChange={() => {
                theme.value = one;
              }}
            />
            {t.themes[one]}
          </label>
        ))}
      </fieldset>
      <fieldset>
        <legend>{t.languageLabel}</legend>
        {languages.map((one) => (
          <label class="choice" key={one.code}>
            <input
              type="radio"
              name="language"
              checked={one.current}
              onChange={() => location.assign(`/?lang=${one.code}${location.hash}`)}
            />
            <span lang={one.code}>{one.name}</span>
          </label>
        ))}
      </fieldset>
      <fieldset>
        <legend>{t.notifications}</legend>
        <label class="choice">
          <input
            type="checkbox"
            checked={notifications.wanted.value}
            disabled={!notifications.possible}
            onChange={(event) => void notifications.set(event.currentTarget.checked)}
          />
          {t.notificationsOn}
        </label>
        {notifications.denied.value && <p class="hint">{t.notificationsDenied}</p>}
      </fieldset>
      <footer>
        <Button onClick={() => run(() => store.logOut())}>{t.logout}</Button>
      </footer>
    </Dialog>
  );
}
