/** Rows of the conversation. */
import { RotateCw, TriangleAlert, X } from "lucide-preact";
import { memo } from "preact/compat";
import { AppError } from "../../api/errors";
import type { Message } from "../../api/types";
import { dayLabel, explain, fullTime, t, timeOf } from "../../i18n";
import type { Pending } from "../../store/outbox";
import { useStore } from "../context";
import { Avatar } from "../kit/avatar";
import { IconButton } from "../kit/button";
import { Linked } from "./linked";

export function Day({ ts }: { readonly ts: number }) {
  return (
    <div class="day">
      <span>{dayLabel(ts)}</span>
    </div>
  );
}

export function NewMark() {
  return (
    <div class="new-mark">
      <span>{t.newMarker}</span>
    </div>
  );
}

interface MessageProps {
  readonly message: Message;
  readonly head: boolean;
  readonly found: boolean;
}

export const MessageRow = memo(({ message, head, found }: MessageProps) => {
  const store = useStore();
  const own = message.sender_id === store.me.value.id;
  const name = store.people.name(message.group_id, message.sender_id);
  const time = (
    <time dateTime={new Date(message.ts).toISOString()} title={fullTime(message.ts)}>
      {timeOf(message.ts)}
    </time>
  );
  return (
    <article class={`message ${head ? "head" : ""} ${own ? "own" : ""} ${found ? "found" : ""}`} data-seq={message.seq}>
      {head ? <Avatar id={message.sender_id} name={name} /> : <span class="side">{time}</span>}
      <div class="content">
        {head && (
          <header>
            <bdi class="name">{name === "" ? t.formerMember : name}</bdi>
            {time}
          </header>
        )}
        <p dir="auto">
          <Linked text={message.body} />
        </p>
      </div>
    </article>
  );
});

export const PendingRow = memo(({ pending, head }: { readonly pending: Pending; readonly head: boolean }) => {
  const store = useStore();
  const me = store.me.value;
  const { groupId, clientMsgId, state } = pending;
  const stuck = state === "failed" || state === "unknown";
  return (
    <article class={`message own ${head ? "head" : ""} ${state}`} aria-busy={state === "sending"}>
      {head ? <Avatar id={me.id} name={me.display_name} /> : <span class="side" />}
      <div class="content">
        {head && (
          <header>
            <bdi class="name">{me.display_name}</bdi>
            <time>{timeOf(pending.at)}</time>
          </header>
        )}
        <p dir="auto">
          <Linked text={pending.body} />
        </p>
        {state === "sending" && <small class="state">{t.sending}…</small>}
        {stuck && (
          <small class="state" role="alert">
            <TriangleAlert size={14} aria-hidden="true" />
            {state === "failed" ? t.sendFailed : t.sendUnknown}
            {pending.reason !== undefined && ` · ${explain(new AppError(pending.reason, ""))}`}
            <IconButton icon={RotateCw} label={t.retry} onClick={() => store.outbox.retry(groupId, clientMsgId)} />
            <IconButton icon={X} label={t.discard} onClick={() => store.outbox.discard(groupId, clientMsgId)} />
          </small>
        )}
      </div>
    </article>
  );
});
