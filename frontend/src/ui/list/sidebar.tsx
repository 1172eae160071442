/** The list of groups, by latest activity, and what one can do without being in one. */
import { Compass, Plus, Search, Settings } from "lucide-preact";
import { useState } from "preact/hooks";
import { t } from "../../i18n";
import { ConnectionBanner } from "../connection";
import { useShell } from "../context";
import { IconButton } from "../kit/button";
import { groupHref, route } from "../route";
import { NoGroups } from "./none";
import { GroupRow } from "./row";

/** Shorter lists need no filter. */
const FILTER_FROM = 8;

export function Sidebar() {
  const { store, dialog, panel } = useShell();
  const [filter, setFilter] = useState("");
  const all = store.groups.sorted.value;
  const wanted = filter.trim().toLocaleLowerCase();
  const views = wanted === "" ? all : all.filter((view) => view.group.name.toLocaleLowerCase().includes(wanted));
  const open = route.value.name === "group" ? route.value.groupId : null;
  return (
    <nav class="sidebar" aria-label={t.groups} onKeyDown={moveInList}>
      <header>
        <img src="/static/logo.svg" alt="" width="28" height="28" />
        <h1>Magpie</h1>
        <IconButton
          icon={Search}
          label={t.search}
          pressed={panel.value === "search"}
          onClick={() => {
            panel.value = "search";
          }}
        />
        <IconButton
          icon={Compass}
          label={t.discover}
          onClick={() => {
            dialog.value = "discover";
          }}
        />
        <IconButton
          icon={Plus}
          label={t.newGroup}
          onClick={() => {
            dialog.value = "new-group";
          }}
        />
        <IconButton
          icon={Settings}
          label={t.settings}
          onClick={() => {
            dialog.value = "settings";
          }}
        />
      </header>
      <ConnectionBanner />
      {all.length >= FILTER_FROM && (
        <input
          class="filter"
          type="search"
          aria-label={t.filterGroups}
          placeholder={t.filterGroups}
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
      )}
      {store.groups.loaded.value && all.length === 0 && <NoGroups />}
      <ul>
        {views.map((view) => (
          <li key={view.group.id}>
            <GroupRow view={view} href={groupHref(view.group.id)} current={view.group.id === open} />
          </li>
        ))}
      </ul>
      {wanted !== "" && views.length === 0 && <p class="hint">{t.nothingFound}</p>}
    </nav>
  );
}

/** Arrow keys go from group to group. */
function moveInList(event: KeyboardEvent): void {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("li > a")];
  const at = links.indexOf(document.activeElement as HTMLElement);
  const next = links[at + (event.key === "ArrowDown" ? 1 : -1)];
  if (at >= 0 && next !== undefined) {
    event.preventDefault();
    next.focus();
  }
}
