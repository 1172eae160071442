/** Where a message is written: the draft stays with the group, Enter sends, and composing Chinese never does. */
import { SendHorizontal } from "lucide-preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { fullTime, t } from "../../i18n";
import { isBlank } from "../blank";
import { useShell } from "../context";

/** From here on the counter is shown. */
const COUNT_FROM = 200;
const HEIGHT_MAX_PX = 220;

export function Composer({
  groupId,
  name,
  mutedUntil,
}: {
  readonly groupId: string;
  readonly name: string;
  readonly mutedUntil: number | null;
}) {
  const shell = useShell();
  const { store } = shell;
  const [text, setText] = useState(() => store.drafts.get(groupId) ?? "");
  const [, setNow] = useState(0);
  const field = useRef<HTMLTextAreaElement>(null);
  const left = store.bodyMax.value - [...text.normalize("NFC")].length;
  const muted = mutedUntil !== null && mutedUntil > store.now();

  useEffect(() => {
    // On a phone the keyboard would cover the messages at once.
    if (matchMedia("(pointer: fine)").matches) field.current?.focus();
  }, [groupId]);
  useEffect(() => {
    if (!muted) return;
    const timer = setTimeout(() => setNow(Date.now()), Math.min(mutedUntil - store.now() + 500, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  }, [muted, mutedUntil]);
  useLayoutEffect(() => {
    const element = field.current;
    if (element === null) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  }, [text]);

  function change(value: string): void {
    setText(value);
    store.draft(groupId, value);
    if (!isBlank(value)) store.typing(groupId);
  }
  function send(): void {
    const body = text.replace(/\s+$/u, "");
    if (isBlank(body) || left < 0) return;
    if (!store.send(groupId, body)) {
      shell.toast(t.tooManyWaiting);
      return;
    }
    setText("");
    store.draft(groupId, "");
    field.current?.focus();
  }
  function onKeyDown(event: KeyboardEvent): void {
    // While a candidate is being chosen, Enter belongs to the input method; Safari says so only by 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send();
  }
  if (muted) return <p class="muted">{t.mutedUntil(fullTime(mutedUntil))}</p>;
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={field}
        rows={1}
        value={text}
        aria-label={t.compose(name)}
        placeholder={t.compose(name)}
        aria-describedby="composer-hint"
        aria-invalid={left < 0}
        dir="auto"
        enterkeyhint="send"
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <button
        type="submit"
        class="icon-button send"
        aria-label={t.send}
        title={t.send}
        disabled={isBlank(text) || left < 0}
      >
        <SendHorizontal size={20} aria-hidden="true" />
      </button>
      <small id="composer-hint" class={left < 0 ? "failure" : ""} role={left < COUNT_FROM ? "status" : undefined}>
        {left < 0 ? t.tooLong(-left) : left < COUNT_FROM ? t.left(left) : t.composeHint}
      </small>
    </form>
  );
}
