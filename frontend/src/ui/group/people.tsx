/** The members of a group beside its conversation. */
import { X } from "lucide-preact";
import { useEffect, useState } from "preact/hooks";
import type { Member } from "../../api/types";
import { shortTime, t } from "../../i18n";
import { useShell } from "../context";
import { Avatar } from "../kit/avatar";
import { Button, IconButton } from "../kit/button";
import { Failure, useAction } from "../kit/dialog";
import { MemberDialog, mayManage } from "./member";

const PAGE = 100;
const RANK = { owner: 0, admin: 1, member: 2 } as const;

export function People({ groupId }: { readonly groupId: string }) {
  const { store, panel } = useShell();
  const group = store.groups.views.value.get(groupId)?.group;
  const [members, setMembers] = useState<readonly Member[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [chosen, setChosen] = useState<string | null>(null);
  const { busy, error, run } = useAction();

  async function read(cursor: string | null): Promise<void> {
    const { client, ask } = store.http;
    const query = { limit: PAGE, ...(cursor === null ? {} : { cursor }) };
    const page = await ask(
      client.GET("/api/v1/groups/{group_id}/members", { params: { path: { group_id: groupId }, query } }),
    );
    store.people.learn(page.items.map((member) => member.user));
    setMembers((before) => {
      const known = new Set(page.items.map((member) => member.user.id));
      return cursor === null ? page.items : [...before.filter((member) => !known.has(member.user.id)), ...page.items];
    });
    setNext(page.next);
  }
  useEffect(() => void run(() => read(null)), [groupId]);
  const event = store.memberEvent.value;
  useEffect(() => {
    if (event === null || event.group_id !== groupId) return;
    const { user, role, muted_until } = event;
    setMembers((before) => {
      const others = before.filter((member) => member.user.id !== user.id);
      return role === null ? others : [...others, { user, role, muted_until }];
    });
  }, [event]);
  if (group === undefined) return null;
  const sorted = [...members].sort(
    (a, b) => RANK[a.role] - RANK[b.role] || a.user.display_name.localeCompare(b.user.display_name),
  );
  const target = members.find((member) => member.user.id === chosen);
  return (
    <section class="panel" aria-label={t.people}>
      <header>
        <h2>{t.members(group.member_count)}</h2>
        <IconButton
          icon={X}
          label={t.close}
          onClick={() => {
            panel.value = null;
          }}
        />
      </header>
      <Failure text={error} />
      <ul class="members">
        {sorted.map((member) => (
          <li key={member.user.id}>
            <Avatar
              id={member.user.id}
              name={member.user.display_name}
              online={store.presence.of(member.user.id)?.online}
              small
            />
            <span class="what">
              <bdi class="name">{member.user.display_name}</bdi>
              <small>
                @{member.user.username}
                {member.role !== "member" && ` · ${t.roles[member.role]}`}
                {(member.muted_until ?? 0) > store.now() && ` · ${t.muted}`}
                <LastSeen userId={member.user.id} />
              </small>
            </span>
            {mayManage(group.role, member, store.me.value.id) && (
              <button
                type="button"
                class="link"
                aria-label={t.manage(member.user.display_name)}
                onClick={() => setChosen(member.user.id)}
              >
                ⋯
              </button>
            )}
          </li>
        ))}
      </ul>
      {next !== null && (
        <Button disabled={busy} onClick={() => run(() => read(next))}>
          {t.more}
        </Button>
      )}
      {target !== undefined && <MemberDialog group={group} member={target} onClose={() => setChosen(null)} />}
    </section>
  );
}

/** The dot says who is online; this says it to screen readers, and to everybody when somebody was. */
function LastSeen({ userId }: { readonly userId: string }) {
  const known = useShell().store.presence.of(userId);
  if (known?.online) return <span class="hidden"> · {t.isOnline}</span>;
  if (known === undefined || known.lastSeen === null) return null;
  return <time dateTime={new Date(known.lastSeen).toISOString()}> · {t.lastSeen(shortTime(known.lastSeen))}</time>;
}
