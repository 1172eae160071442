/** The conversation as a virtual list: it keeps its place when older messages come in above, and follows at the end. */
import { ArrowDown } from "lucide-preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Virtualizer, type VirtualizerHandle } from "virtua";
import { t } from "../../i18n";
import { unreadOf } from "../../store/groups";
import { useStore } from "../context";
import { go, groupHref, route } from "../route";
import { Day, MessageRow, NewMark, PendingRow } from "./message";
import { buildRows, type Row, rowOfSeq, seqAt } from "./rows";

/** As near to the end as this counts as being there. */
const END_PX = 48;
/** So near to an end the next page is read; earlier where the reader moves towards it, so that it is there in time. */
const PAGE_PX = 800;
const AHEAD_PX = 4_000;
const FOUND_MS = 2_500;

interface ListProps {
  readonly groupId: string;
  /** A message to show; null: the newest ones. */
  readonly target: number | null;
  /** Another one each time the reader is led there. */
  readonly jump: unknown;
}

export function MessageList({ groupId, target, jump }: ListProps) {
  const store = useStore();
  const timeline = store.history.of(groupId);
  const view = store.groups.views.value.get(groupId);
  const items = timeline.items.value;
  const pending = store.outbox.pending.value.get(groupId);
  const live = timeline.live.value;
  const loaded = timeline.loaded.value;
  // What was unread when the group was opened stays marked while it is open.
  const [newAfter] = useState(() => (view !== undefined && unreadOf(view) > 0 ? view.readSeq : null));
  const rows = useMemo(
    () => buildRows({ items, pending: live ? (pending ?? []) : [], newAfter, me: store.me.value.id }),
    [items, pending, live, newAfter],
  );
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const atEnd = useRef(true);
  const offset = useRef(0);
  const placed = useRef(false);
  const [away, setAway] = useState(false);
  const [found, setFound] = useState<number | null>(null);
  const prepended = usePrepended(rows);

  function look(): void {
    const handle = list.current;
    // Before the first measuring nobody can see anything.
    if (handle === null || !placed.current || handle.viewportSize === 0) return;
    const left = handle.scrollSize - handle.scrollOffset - handle.viewportSize;
    // Growing messages move the end away from the reader; only the reader leaves it.
    const before = offset.current;
    const upward = handle.scrollOffset < before - 1;
    offset.current = handle.scrollOffset;
    atEnd.current = live && (left <= END_PX || (atEnd.current && !upward));
    setAway(!live || left > handle.viewportSize / 2);
    const downward = handle.scrollOffset > before + 1;
    if (handle.scrollOffset < (upward && !atEnd.current ? AHEAD_PX : PAGE_PX)) void store.history.older(groupId);
    if (!live && left < (downward ? AHEAD_PX : PAGE_PX)) void store.history.newer(groupId);
    if (!document.hidden) {
      const seen = seqAt(rows, handle.findItemIndex(handle.scrollOffset + handle.viewportSize - 1));
      if (seen > 0) store.read(groupId, seen);
    }
  }

  // First of all, and after each jump, the place to begin at.
  useLayoutEffect(() => {
    if (target === null) return;
    placed.current = false;
    void store.history.around(groupId, target).then(() => {
      if (timeline.failed.value || route.value !== jump) return;
      // Where there is no such message, the newest ones are better than nothing.
      if (target < timeline.first || target > timeline.last) go(groupHref(groupId));
      else setFound(target);
    });
  }, [target, jump]);
  useLayoutEffect(() => {
    const handle = list.current;
    if (handle === null || !loaded || rows.length === 0) return;
    if (!placed.current) {
      const at = target !== null ? rowOfSeq(rows, target) : rows.findIndex((row) => row.type === "new");
      if (target !== null && at < 0) return;
      if (at >= 0) handle.scrollToIndex(at, { align: target !== null ? "center" : "start" });
      else handle.scrollToIndex(rows.length - 1, { align: "end" });
      atEnd.current = at < 0;
      placed.current = true;
    } else if (atEnd.current) handle.scrollToIndex(rows.length - 1, { align: "end" });
    const frame = requestAnimationFrame(look);
    return () => cancelAnimationFrame(frame);
  }, [rows, loaded, target, jump]);
  useEffect(() => {
    if (found === null) return;
    const timer = setTimeout(() => setFound(null), FOUND_MS);
    return () => clearTimeout(timer);
  }, [found]);
  // An own message leads back to the end, wherever one was reading.
  const waiting = pending?.length ?? 0;
  const waited = useRef(waiting);
  useEffect(() => {
    if (waiting > waited.current) toLatest();
    waited.current = waiting;
  }, [waiting]);
  useEffect(() => {
    const visible = () => look();
    document.addEventListener("visibilitychange", visible);
    return () => document.removeEventListener("visibilitychange", visible);
  });

  function toLatest(): void {
    atEnd.current = true;
    if (target !== null) go(groupHref(groupId));
    if (!live) {
      placed.current = false;
      void store.history.open(groupId);
    } else list.current?.scrollToIndex(rows.length - 1, { align: "end" });
  }
  const unread = view === undefined ? 0 : unreadOf(view);
  return (
    <div class="list">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard. */}
      <div class="scroller" ref={scroller} role="log" aria-label={t.messages} aria-live="off" tabIndex={0}>
        <div class="filler" />
        <Virtualizer
          ref={list}
          scrollRef={scroller}
          data={rows}
          shift={prepended}
          bufferSize={600}
          onScroll={look}
          onResize={() => {
            if (atEnd.current && placed.current) list.current?.scrollToIndex(rows.length - 1, { align: "end" });
            look();
          }}
        >
          {(row) => <RowOf key={row.key} row={row} name={view?.group.name ?? ""} found={found} />}
        </Virtualizer>
        {/* Inside what scrolls, so that the wheel works above it too. */}
        <div class="floating">
          {away && loaded && (
            <button type="button" class="to-latest" onClick={toLatest}>
              <ArrowDown size={16} aria-hidden="true" />
              {unread > 0 ? t.newMessages(unread) : t.toLatest}
            </button>
          )}
        </div>
      </div>
      {timeline.loading.value !== null && <p class="loading">{t.loading}</p>}
      {timeline.failed.value && (
        <p class="loading failure" role="alert">
          {t.loadFailed}{" "}
          <button type="button" class="link" onClick={() => (loaded ? look() : void store.history.open(groupId))}>
            {t.again}
          </button>
        </p>
      )}
    </div>
  );
}

function RowOf({ row, name, found }: { readonly row: Row; readonly name: string; readonly found: number | null }) {
  switch (row.type) {
    case "beginning":
      return <p class="beginning">{t.beginning(name)}</p>;
    case "day":
      return <Day ts={row.ts} />;
    case "new":
      return <NewMark />;
    case "message":
      return <MessageRow message={row.message} head={row.head} found={row.message.seq === found} />;
    case "pending":
      return <PendingRow pending={row.pending} head={row.head} />;
  }
}

/** Whether rows were added above the first message since the last rendering. */
function usePrepended(rows: readonly Row[]): boolean {
  const before = useRef(0);
  const first = rows.find((row) => row.type === "message")?.message.seq ?? 0;
  const prepended = before.current > 0 && first > 0 && first < before.current;
  useLayoutEffect(() => {
    before.current = first;
  });
  return prepended;
}
