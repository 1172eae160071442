/** Make a group. */
import { useState } from "preact/hooks";
import { t } from "../../i18n";
import { isBlank } from "../blank";
import { useStore } from "../context";
import { Button } from "../kit/button";
import { Dialog, Failure, useAction } from "../kit/dialog";
import { go, groupHref } from "../route";

/** The server's bound of a name, in characters. */
export const GROUP_NAME_MAX = 50;

export function NewGroup({ onClose }: { readonly onClose: () => void }) {
  const store = useStore();
  const [name, setName] = useState("");
  const [visibility, setVisibility] = useState<"open" | "invite">("invite");
  const { busy, error, run } = useAction();
  async function create(): Promise<void> {
    const { client, ask } = store.http;
    const group = await ask(client.POST("/api/v1/groups", { body: { name, visibility } }));
    store.learn(group);
    onClose();
    go(groupHref(group.id));
  }
  return (
    <Dialog title={t.newGroup} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void run(create);
        }}
      >
        <label>
          {t.groupName}
          <input
            autofocus
            value={name}
            maxLength={GROUP_NAME_MAX}
            required
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <fieldset>
          <legend>{t.whoMayJoin}</legend>
          <label class="choice">
            <input
              type="radio"
              name="visibility"
              checked={visibility === "invite"}
              onChange={() => setVisibility("invite")}
            />
            {t.visibilityInvite}
          </label>
          <label class="choice">
            <input
              type="radio"
              name="visibility"
              checked={visibility === "open"}
              onChange={() => setVisibility("open")}
            />
            {t.visibilityOpen}
          </label>
        </fieldset>
        <Failure text={error} />
        <footer>
          <Button onClick={onClose}>{t.cancel}</Button>
          <Button kind="primary" type="submit" disabled={busy || isBlank(name)}>
            {t.create}
          </Button>
        </footer>
      </form>
    </Dialog>
  );
}
