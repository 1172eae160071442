/** One group on screen: its head, its messages, who types, and the composer. */
import { ChevronLeft, Info, Search, Users } from "lucide-preact";
import { t } from "../../i18n";
import { useShell } from "../context";
import { IconButton } from "../kit/button";
import { go, route } from "../route";
import { Composer } from "./composer";
import { MessageList } from "./list";

export function Chat({ groupId }: { readonly groupId: string }) {
  const shell = useShell();
  const { store, panel, dialog } = shell;
  const group = store.groups.views.value.get(groupId)?.group;
  if (group === undefined) return null;
  const online = store.presence.count(groupId);
  const where = route.value;
  return (
    <section class="chat" aria-label={t.conversation(group.name)}>
      <header>
        <IconButton icon={ChevronLeft} label={t.back} class="back" onClick={() => go("#/")} />
        <button
          type="button"
          class="title"
          onClick={() => {
            dialog.value = "about";
          }}
        >
          <h1>
            <bdi>{group.name}</bdi>
          </h1>
          <small>
            {t.members(group.member_count)}
            {online !== null && ` · ${t.onlineNow(online)}`}
            {group.announcement !== "" && <bdi> · {group.announcement}</bdi>}
          </small>
        </button>
        <IconButton
          icon={Search}
          label={t.search}
          pressed={panel.value === "search"}
          onClick={() => shell.toggle("search")}
        />
        <IconButton
          icon={Users}
          label={t.people}
          pressed={panel.value === "people"}
          onClick={() => shell.toggle("people")}
        />
        <IconButton
          icon={Info}
          label={t.about}
          onClick={() => {
            dialog.value = "about";
          }}
        />
      </header>
      <MessageList groupId={groupId} target={where.name === "group" ? where.seq : null} jump={where} />
      <Typing groupId={groupId} />
      <Composer groupId={groupId} name={group.name} mutedUntil={group.muted_until} />
      <Announcer groupId={groupId} />
    </section>
  );
}

function Typing({ groupId }: { readonly groupId: string }) {
  const { store } = useShell();
  const names = (store.people.typing.value.get(groupId) ?? [])
    .map((id) => store.people.users.value.get(id)?.display_name ?? "")
    .filter((name) => name !== "");
  const [one, two] = names;
  const text =
    one === undefined
      ? ""
      : two === undefined
        ? t.typingOne(one)
        : names.length === 2
          ? t.typingTwo(one, two)
          : t.typingMany;
  return <p class="typing">{text}</p>;
}

/** Says new messages of others to screen readers; the list itself would say too much when it scrolls. */
function Announcer({ groupId }: { readonly groupId: string }) {
  const { store } = useShell();
  const last = store.groups.views.value.get(groupId)?.lastMessage;
  const other = last != null && last.sender_id !== store.me.value.id;
  return (
    <p class="hidden" role="status">
      {other ? `${store.people.name(groupId, last.sender_id)}: ${last.body}` : ""}
    </p>
  );
}
