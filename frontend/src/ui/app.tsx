/** The page: list, conversation, and a panel beside it; on a phone one of them at a time. */
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../i18n";
import { Chat } from "./chat/chat";
import { useShell } from "./context";
import { About } from "./group/about";
import { JoinByInvite } from "./group/join";
import { People } from "./group/people";
import { Discover } from "./list/discover";
import { NewGroup } from "./list/new-group";
import { NoGroups } from "./list/none";
import { Settings } from "./list/settings";
import { Sidebar } from "./list/sidebar";
import { route } from "./route";
import { SEARCH_ID, Search } from "./search";

export function App() {
  const { store, panel, dialog } = useShell();
  const where = route.value;
  const groupId = where.name === "group" ? where.groupId : null;
  const view = groupId === null ? undefined : store.groups.views.value.get(groupId);
  useEffect(() => {
    store.focus(view === undefined ? null : groupId);
    // It was about another group.
    if (dialog.value === "about") dialog.value = null;
  }, [store, dialog, groupId, view === undefined]);
  useEffect(() => {
    function onKey(event: KeyboardEvent): void {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        // Behind a dialog nobody would see it.
        if (document.querySelector("dialog[open]") !== null) return;
        panel.value = "search";
        document.getElementById(SEARCH_ID)?.focus();
      } else if (event.key === "Escape" && dialog.value === null && panel.value !== null) panel.value = null;
    }
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [panel, dialog]);
  const close = () => {
    dialog.value = null;
  };
  const shown = panel.value === "people" && view === undefined ? null : panel.value;
  return (
    <main class={`app ${view === undefined ? "at-list" : "at-chat"} ${shown === null ? "" : "with-panel"}`}>
      <button type="button" class="skip" onClick={() => document.getElementById("conversation")?.focus()}>
        {t.skip}
      </button>
      <Sidebar />
      <section id="conversation" class="conversation" tabIndex={-1} aria-label={t.messages}>
        {view === undefined ? <Nothing /> : <Chat key={view.group.id} groupId={view.group.id} />}
      </section>
      {shown === "people" && view !== undefined && <People key={view.group.id} groupId={view.group.id} />}
      {shown === "search" && <Search groupId={view?.group.id ?? null} />}
      {dialog.value === "new-group" && <NewGroup onClose={close} />}
      {dialog.value === "discover" && <Discover onClose={close} />}
      {dialog.value === "settings" && <Settings onClose={close} />}
      {dialog.value === "about" && view !== undefined && (
        <About key={view.group.id} groupId={view.group.id} onClose={close} />
      )}
      {where.name === "join" && <JoinByInvite key={where.code} groupId={where.groupId} code={where.code} />}
      <Toasts />
    </main>
  );
}

function Toasts() {
  const { toasts } = useShell();
  const element = useRef<HTMLDivElement>(null);
  const shown = toasts.value;
  // Shown anew with each, it lies above whatever dialog was opened meanwhile.
  useLayoutEffect(() => {
    element.current?.hidePopover();
    element.current?.showPopover();
  }, [shown]);
  return (
    <div ref={element} class="toasts" popover="manual" role="status">
      {shown.map((toast) => (
        <p key={toast.id}>{toast.text}</p>
      ))}
    </div>
  );
}

function Nothing() {
  const { store } = useShell();
  // Before the groups are known there is nothing to say about them.
  if (!store.groups.loaded.value) return null;
  if (store.groups.views.value.size === 0) return <NoGroups />;
  return (
    <div class="nothing">
      <img src="/static/logo.svg" alt="" width="96" height="96" />
      <p>{t.pickGroup}</p>
    </div>
  );
}
