/** What owners and admins may do with a member. The server decides; this only leaves out what it would refuse. */
import { useState } from "preact/hooks";
import type { Group, Member, Role } from "../../api/types";
import { t } from "../../i18n";
import { useStore } from "../context";
import { Button } from "../kit/button";
import { Confirm, Dialog, Failure, useAction } from "../kit/dialog";

const RANK: Record<Role, number> = { owner: 2, admin: 1, member: 0 };
const MINUTE_MS = 60_000;
const MUTES = [
  { label: t.minutes10, ms: 10 * MINUTE_MS },
  { label: t.hour, ms: 60 * MINUTE_MS },
  { label: t.day, ms: 24 * 60 * MINUTE_MS },
];

type Sure = "kick" | "ban" | "transfer";

export function mayManage(own: Role, member: Member, me: string): boolean {
  return RANK[own] > 0 && RANK[own] > RANK[member.role] && member.user.id !== me;
}

interface MemberProps {
  readonly group: Group;
  readonly member: Member;
  readonly onClose: () => void;
}

export function MemberDialog({ group, member, onClose }: MemberProps) {
  const store = useStore();
  const { client, ask } = store.http;
  const [sure, setSure] = useState<Sure | null>(null);
  const { busy, error, run } = useAction();
  const name = member.user.display_name;
  const path = { group_id: group.id, user_id: member.user.id };
  async function patch(body: { role?: "admin" | "member"; muted_until?: number | null }): Promise<void> {
    await ask(client.PATCH("/api/v1/groups/{group_id}/members/{user_id}", { params: { path }, body }));
    onClose();
  }
  async function doIt(what: Sure): Promise<void> {
    if (what === "kick") await ask(client.DELETE("/api/v1/groups/{group_id}/members/{user_id}", { params: { path } }));
    else if (what === "ban") await ask(client.PUT("/api/v1/groups/{group_id}/bans/{user_id}", { params: { path } }));
    else {
      const asked = { params: { path: { group_id: group.id } }, body: { user_id: member.user.id } };
      store.learn(await ask(client.POST("/api/v1/groups/{group_id}/transfer", asked)));
    }
    onClose();
  }
  if (sure !== null) {
    const texts = { kick: t.sureKick(name), ban: t.sureBan(name), transfer: t.sureTransfer(name) };
    return <Confirm text={texts[sure]} action={t[sure]} onConfirm={() => doIt(sure)} onClose={() => setSure(null)} />;
  }
  const muted = (member.muted_until ?? 0) > store.now();
  return (
    <Dialog title={name} onClose={onClose}>
      <p class="hint">
        @{member.user.username} · {t.roles[member.role]}
        {muted && ` · ${t.muted}`}
      </p>
      <Failure text={error} />
      <div class="actions">
        {muted ? (
          <Button disabled={busy} onClick={() => run(() => patch({ muted_until: null }))}>
            {t.unmute}
          </Button>
        ) : (
          <fieldset>
            <legend>{t.muteFor}</legend>
            {MUTES.map(({ label, ms }) => (
              <Button key={label} disabled={busy} onClick={() => run(() => patch({ muted_until: store.now() + ms }))}>
                {label}
              </Button>
            ))}
          </fieldset>
        )}
        {group.role === "owner" && (
          <>
            <Button
              disabled={busy}
              onClick={() => run(() => patch({ role: member.role === "admin" ? "member" : "admin" }))}
            >
              {member.role === "admin" ? t.makeMember : t.makeAdmin}
            </Button>
            <Button onClick={() => setSure("transfer")}>{t.transfer}</Button>
          </>
        )}
        <Button kind="danger" onClick={() => setSure("kick")}>
          {t.kick}
        </Button>
        <Button kind="danger" onClick={() => setSure("ban")}>
          {t.ban}
        </Button>
      </div>
    </Dialog>
  );
}
