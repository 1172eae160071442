/** A modal dialog of the browser: it traps the focus, closes with Escape, and gives the focus back. */
import { X } from "lucide-preact";
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { explain, t } from "../../i18n";
import { Button, IconButton } from "./button";

interface DialogProps {
  readonly title: string;
  readonly onClose: () => void;
  readonly children: ComponentChildren;
}

export function Dialog({ title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  // Before anything is painted, so that no key goes to what is behind it.
  useLayoutEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      // While it is open nothing behind it can have the focus; closed, it goes back to where it was.
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onMouseDown={(event) => {
        if (event.target === element.current) onClose();
      }}
    >
      <div class="dialog">
        <header>
          <h2 id={titleId}>{title}</h2>
          <IconButton icon={X} label={t.close} onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

interface ConfirmProps {
  readonly text: string;
  readonly action: string;
  readonly onConfirm: () => Promise<void>;
  readonly onClose: () => void;
}

/** Asks before something that cannot be taken back. */
export function Confirm({ text, action, onConfirm, onClose }: ConfirmProps) {
  const { busy, error, run } = useAction();
  return (
    <Dialog title={action} onClose={onClose}>
      <p>{text}</p>
      <Failure text={error} />
      <footer>
        <Button onClick={onClose}>{t.cancel}</Button>
        <Button kind="danger" disabled={busy} onClick={() => run(onConfirm)}>
          {action}
        </Button>
      </footer>
    </Dialog>
  );
}

export function Failure({ text }: { readonly text: string }) {
  return (
    <p class="failure" role="alert">
      {text}
    </p>
  );
}

/** Runs one thing at a time and keeps what it failed with, as a text. */
export function useAction() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  async function run(action: () => Promise<void>): Promise<void> {
    setBusy(true);
    setError("");
    try {
      await action();
    } catch (caught) {
      setError(explain(caught));
    } finally {
      setBusy(false);
    }
  }
  return { busy, error, run };
}
