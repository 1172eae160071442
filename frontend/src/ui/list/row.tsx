/** One group in the list: name, when and what was said last, and how much is unread. */
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { shortTime, t } from "../../i18n";
import { type GroupView, unreadLabel, unreadOf } from "../../store/groups";
import { useStore } from "../context";
import { Avatar } from "../kit/avatar";

interface RowProps {
  readonly view: GroupView;
  readonly href: string;
  readonly current: boolean;
}

export const GroupRow = memo(({ view, href, current }: RowProps) => {
  const { group, lastMessage } = view;
  const unread = unreadLabel(unreadOf(view));
  return (
    <a class="group-row" href={href} aria-current={current ? "page" : undefined}>
      <Avatar id={group.id} name={group.name} />
      <span class="what">
        <bdi class="name">{group.name}</bdi>
        <Preview view={view} />
      </span>
      <span class="when">
        {lastMessage !== null && (
          <time dateTime={new Date(lastMessage.ts).toISOString()}>{shortTime(lastMessage.ts)}</time>
        )}
        {unread !== "" && (
          <span class="badge">
            <span aria-hidden="true">{unread}</span>
            <span class="hidden">{t.unread(unread)}</span>
          </span>
        )}
      </span>
    </a>
  );
});

function Preview({ view: { group, lastMessage } }: { readonly view: GroupView }) {
  const store = useStore();
  const [element, inSight] = useInSight<HTMLSpanElement>();
  const draft = store.drafts.get(group.id);
  if (lastMessage === null) return <span class="preview">{draft ?? t.noMessages}</span>;
  const own = lastMessage.sender_id === store.me.value.id;
  // A name costs a call of its own, and most of a long list is out of sight.
  const name = own ? t.you : inSight ? store.people.name(group.id, lastMessage.sender_id) : "";
  return (
    <span class="preview" ref={element}>
      {name !== "" && <bdi class="who">{name}: </bdi>}
      <bdi>{lastMessage.body.slice(0, 120)}</bdi>
    </span>
  );
}

/** Whether the element has been on the screen yet. */
function useInSight<T extends Element>() {
  const element = useRef<T>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || element.current === null) return;
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) setSeen(true);
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  });
  return [element, seen] as const;
}
