/** Buttons with an icon; the label is what screen readers and tooltips say. */
import type { LucideIcon } from "lucide-preact";
import type { ComponentChildren, JSX } from "preact";

interface IconButtonProps {
  readonly icon: LucideIcon;
  readonly label: string;
  readonly onClick: () => void;
  readonly pressed?: boolean;
  readonly class?: string;
}

export function IconButton({ icon: Icon, label, onClick, pressed, class: name = "" }: IconButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${name}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      onClick={onClick}
    >
      <Icon size={20} aria-hidden="true" />
    </button>
  );
}

interface ButtonProps {
  readonly kind?: "primary" | "plain" | "danger";
  readonly type?: "button" | "submit";
  readonly disabled?: boolean;
  readonly onClick?: JSX.MouseEventHandler<HTMLButtonElement>;
  readonly children: ComponentChildren;
}

export function Button({ kind = "plain", type = "button", disabled = false, onClick, children }: ButtonProps) {
  return (
    <button type={type} class={`button ${kind}`} disabled={disabled} onClick={onClick}>
      {children}
    </button>
  );
}
