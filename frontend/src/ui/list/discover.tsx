/** Find open groups by name and join them. */
import { useEffect, useState } from "preact/hooks";
import type { FoundGroup } from "../../api/types";
import { t } from "../../i18n";
import { useStore } from "../context";
import { Avatar } from "../kit/avatar";
import { Button } from "../kit/button";
import { Dialog, Failure, useAction } from "../kit/dialog";
import { go, groupHref } from "../route";

const TYPED_MS = 250;
const PAGE = 20;

export function Discover({ onClose }: { readonly onClose: () => void }) {
  const store = useStore();
  const [q, setQ] = useState("");
  const [found, setFound] = useState<readonly FoundGroup[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [looked, setLooked] = useState(false);
  const { busy, error, run } = useAction();

  async function look(cursor: string | null, wanted: () => boolean): Promise<void> {
    const { client, ask } = store.http;
    const query = { limit: PAGE, ...(q.trim() === "" ? {} : { q: q.trim() }), ...(cursor === null ? {} : { cursor }) };
    const page = await ask(client.GET("/api/v1/groups/discover", { params: { query } }));
    if (!wanted()) return;
    setFound(cursor === null ? page.items : [...found, ...page.items]);
    setNext(page.next);
    setLooked(true);
  }
  useEffect(() => {
    let newest = true;
    const timer = setTimeout(() => void run(() => look(null, () => newest)), TYPED_MS);
    return () => {
      newest = false;
      clearTimeout(timer);
    };
  }, [q]);

  async function join(group: FoundGroup): Promise<void> {
    const { client, ask } = store.http;
    store.learn(
      await ask(client.POST("/api/v1/groups/{group_id}/join", { params: { path: { group_id: group.id } }, body: {} })),
    );
    show(group);
  }
  function show(group: FoundGroup): void {
    onClose();
    go(groupHref(group.id));
  }
  return (
    <Dialog title={t.discover} onClose={onClose}>
      <input
        type="search"
        aria-label={t.findGroups}
        placeholder={t.findGroups}
        value={q}
        maxLength={50}
        onInput={(event) => setQ(event.currentTarget.value)}
      />
      <Failure text={error} />
      <ul class="found">
        {found.map((group) => (
          <li key={group.id}>
            <Avatar id={group.id} name={group.name} />
            <span class="what">
              <bdi class="name">{group.name}</bdi>
              <small>{t.members(group.member_count)}</small>
            </span>
            {group.joined || store.groups.views.value.has(group.id) ? (
              <Button onClick={() => show(group)}>
                {t.open} <span class="hidden">{group.name}</span>
              </Button>
            ) : (
              <Button kind="primary" disabled={busy} onClick={() => run(() => join(group))}>
                {t.join} <span class="hidden">{group.name}</span>
              </Button>
            )}
          </li>
        ))}
      </ul>
      {looked && found.length === 0 && <p class="hint">{t.nothingFound}</p>}
      {next !== null && (
        <Button disabled={busy} onClick={() => run(() => look(next, () => true))}>
          {t.more}
        </Button>
      )}
    </Dialog>
  );
}
