/** What a group is, and what its members may do with it as a whole. */
import { useState } from "preact/hooks";
import { fullTime, t } from "../../i18n";
import { isBlank } from "../blank";
import { useShell } from "../context";
import { Button } from "../kit/button";
import { Confirm, Dialog, Failure, useAction } from "../kit/dialog";
import { GROUP_NAME_MAX } from "../list/new-group";
import { go, inviteUrl } from "../route";

const ANNOUNCEMENT_MAX = 1_000;

export function About({ groupId, onClose }: { readonly groupId: string; readonly onClose: () => void }) {
  const { store } = useShell();
  const group = store.groups.views.value.get(groupId)?.group;
  const [ask, setAsk] = useState<"leave" | "disband" | null>(null);
  if (group === undefined) return null;
  const params = { params: { path: { group_id: groupId } } };
  const http = store.http;
  async function end(how: "leave" | "disband"): Promise<void> {
    if (how === "leave") await http.ask(http.client.POST("/api/v1/groups/{group_id}/leave", params));
    else await http.ask(http.client.DELETE("/api/v1/groups/{group_id}", params));
    onClose();
    store.gone(groupId);
    go("#/");
  }
  if (ask !== null) {
    return (
      <Confirm
        text={ask === "leave" ? t.sureLeave(group.name) : t.sureDisband(group.name)}
        action={ask === "leave" ? t.leave : t.disband}
        onConfirm={() => end(ask)}
        onClose={() => setAsk(null)}
      />
    );
  }
  const owner = group.role === "owner";
  return (
    <Dialog title={t.about} onClose={onClose}>
      {group.role === "member" ? (
        <div class="about">
          <h3>
            <bdi>{group.name}</bdi>
          </h3>
          <p class="text">{group.announcement}</p>
        </div>
      ) : (
        <Edit groupId={groupId} name={group.name} announcement={group.announcement} />
      )}
      <p class="hint">
        {t.members(group.member_count)} · {group.visibility === "open" ? t.visibilityOpen : t.visibilityInvite}
      </p>
      <InviteLink groupId={groupId} />
      <footer>
        {owner ? (
          <Button kind="danger" onClick={() => setAsk("disband")}>
            {t.disband}
          </Button>
        ) : (
          <Button kind="danger" onClick={() => setAsk("leave")}>
            {t.leave}
          </Button>
        )}
      </footer>
    </Dialog>
  );
}

interface EditProps {
  readonly groupId: string;
  readonly name: string;
  readonly announcement: string;
}

function Edit({ groupId, name, announcement }: EditProps) {
  const shell = useShell();
  const { client, ask } = shell.store.http;
  const [newName, setName] = useState(name);
  const [newText, setText] = useState(announcement);
  const { busy, error, run } = useAction();
  async function save(): Promise<void> {
    const body = { name: newName, announcement: newText };
    shell.store.learn(
      await ask(client.PATCH("/api/v1/groups/{group_id}", { params: { path: { group_id: groupId } }, body })),
    );
    shell.toast(t.saved);
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void run(save);
      }}
    >
      <label>
        {t.groupName}
        <input
          value={newName}
          maxLength={GROUP_NAME_MAX}
          required
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
      <label>
        {t.announcement}
        <textarea
          value={newText}
          maxLength={ANNOUNCEMENT_MAX}
          rows={3}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      <Failure text={error} />
      <Button
        kind="primary"
        type="submit"
        disabled={busy || isBlank(newName) || (newName === name && newText === announcement)}
      >
        {t.save}
      </Button>
    </form>
  );
}

/** What was asked for has the focus, ready to be copied. */
function selected(input: HTMLInputElement | null): void {
  input?.focus();
}

function InviteLink({ groupId }: { readonly groupId: string }) {
  const shell = useShell();
  const { client, ask } = shell.store.http;
  const [link, setLink] = useState<{ url: string; until: number } | null>(null);
  const { busy, error, run } = useAction();
  async function make(): Promise<void> {
    const invite = await ask(
      client.POST("/api/v1/groups/{group_id}/invite", { params: { path: { group_id: groupId } } }),
    );
    setLink({ url: inviteUrl(groupId, invite.code), until: invite.expires_at });
  }
  async function copy(url: string): Promise<void> {
    await navigator.clipboard.writeText(url);
    shell.toast(t.copied);
  }
  return (
    <section class="invite">
      {link === null ? (
        <Button disabled={busy} onClick={() => run(make)}>
          {t.invite}
        </Button>
      ) : (
        <>
          <label>
            {t.invite}
            <input ref={selected} readOnly value={link.url} onFocus={(event) => event.currentTarget.select()} />
          </label>
          {/* Browsers have it only where the page came by HTTPS or from this machine. */}
          {"clipboard" in navigator && <Button onClick={() => run(() => copy(link.url))}>{t.copy}</Button>}
          <p class="hint">
            {t.inviteText} {fullTime(link.until)}
          </p>
        </>
      )}
      <Failure text={error} />
    </section>
  );
}
