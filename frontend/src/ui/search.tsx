/** Search in all groups or in one; a result leads to the message where it was said. */
import { X } from "lucide-preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { AppError } from "../api/errors";
import type { Found } from "../api/types";
import { explain, shortTime, t } from "../i18n";
import { useShell } from "./context";
import { highlighted } from "./highlight";
import { Button, IconButton } from "./kit/button";
import { Failure } from "./kit/dialog";
import { go, groupHref } from "./route";

/** For who opens it again. */
export const SEARCH_ID = "search";
const TYPED_MS = 250;
const PAGE = 20;
const QUERY_MAX = 200;
/** A page may be empty though there are more: the server looked through many messages in vain. So often the next one is asked for. */
const EMPTY_MAX = 5;

interface Results {
  readonly items: readonly Found[];
  readonly next: string | null;
}

export function Search({ groupId }: { readonly groupId: string | null }) {
  const { store, panel } = useShell();
  const field = useRef<HTMLInputElement>(null);
  const [q, setQ] = useState("");
  const [here, setHere] = useState(false);
  const [results, setResults] = useState<Results | null>(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const asked = useRef(0);
  const only = here && groupId !== null ? groupId : null;

  async function look(before: string | null): Promise<void> {
    const { client, ask } = store.http;
    asked.current += 1;
    const turn = asked.current;
    // An answer to what is no longer asked must not stand beside, or instead of, the newer one.
    const wanted = () => turn === asked.current;
    setBusy(true);
    const query = { q, limit: PAGE, ...(only === null ? {} : { group_id: only }) };
    const get = (from: string | null) =>
      ask(
        client.GET("/api/v1/search/messages", {
          params: { query: from === null ? query : { ...query, before: from } },
        }),
      );
    try {
      let page = await get(before);
      for (let n = 1; n < EMPTY_MAX && wanted() && page.items.length === 0 && page.next !== null; n += 1) {
        page = await get(page.next);
      }
      if (!wanted()) return;
      setResults((known) => ({
        items: before === null ? page.items : [...(known?.items ?? []), ...page.items],
        next: page.next,
      }));
      setError("");
    } catch (caught) {
      if (!wanted()) return;
      if (before === null) setResults(null);
      // A quote that was just opened, or a sign: there will be more.
      setError(caught instanceof AppError && caught.code === "bad_request" ? "" : explain(caught));
    } finally {
      if (wanted()) setBusy(false);
    }
  }
  // Before the next key is pressed, not after the next picture.
  useLayoutEffect(() => field.current?.focus(), []);
  useEffect(() => {
    asked.current += 1;
    if (q.trim() === "") {
      setResults(null);
      setError("");
      return;
    }
    const timer = setTimeout(() => void look(null), TYPED_MS);
    return () => clearTimeout(timer);
  }, [q, only]);
  const next = results?.next ?? null;
  return (
    <section class="panel search" aria-label={t.search}>
      <header>
        <input
          ref={field}
          id={SEARCH_ID}
          type="search"
          aria-label={t.searchMessages}
          placeholder={t.searchMessages}
          value={q}
          maxLength={QUERY_MAX}
          onInput={(event) => setQ(event.currentTarget.value)}
        />
        <IconButton
          icon={X}
          label={t.close}
          onClick={() => {
            panel.value = null;
          }}
        />
      </header>
      {groupId !== null && (
        <label class="choice">
          <input type="checkbox" checked={here} onChange={(event) => setHere(event.currentTarget.checked)} />
          {t.inThisGroup}
        </label>
      )}
      <Failure text={error} />
      <p class="hint" role="status">
        {results === null
          ? t.searchHint
          : results.items.length === 0
            ? next === null
              ? t.nothingFound
              : t.nothingFoundYet
            : t.results(results.items.length, next !== null)}
      </p>
      <ol class="results">
        {results?.items.map((item) => (
          <li key={item.message.message_id}>
            <Result item={item} />
          </li>
        ))}
      </ol>
      {next !== null && (
        <Button disabled={busy} onClick={() => look(next)}>
          {t.more}
        </Button>
      )}
    </section>
  );
}

function Result({ item: { message, snippet, highlights } }: { readonly item: Found }) {
  const { store, panel } = useShell();
  const group = store.groups.views.value.get(message.group_id)?.group;
  const href = groupHref(message.group_id, message.seq);
  return (
    <a
      href={href}
      onClick={() => {
        // The browser does nothing where the address is this one already; the reader may have gone elsewhere.
        if (location.hash === href) go(href);
        // On a phone the panel covers the conversation.
        if (matchMedia("(max-width: 800px)").matches) panel.value = null;
      }}
    >
      <span class="where">
        <bdi class="name">{group?.name ?? ""}</bdi>
        <time dateTime={new Date(message.ts).toISOString()}>{shortTime(message.ts)}</time>
      </span>
      <bdi class="who">{store.people.name(message.group_id, message.sender_id)}</bdi>
      <p dir="auto">
        {highlighted(snippet, highlights).map((part, index) =>
          part.marked ? <mark key={index}>{part.text}</mark> : part.text,
        )}
      </p>
    </a>
  );
}
