// The controls beside the picture: choices of one, and the legend.

const KEPT_MS = 8000; // a class that left the picture stays in the legend for so long
const LEAST_SHARE = 0.0005; // of the pixels, for a class to be listed

/** Fill a group of buttons of which one is chosen; arrow keys move in it. */
export class Choice {
  constructor(root, items, onChoose) {
    this.root = root;
    this.buttons = new Map();
    for (const { value, text, key } of items) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("role", "radio");
      button.dataset.value = value;
      button.textContent = text;
      if (key) button.title = `${text} (${key})`;
      button.addEventListener("click", () => onChoose(value));
      this.buttons.set(value, button);
    }
    root.replaceChildren(...this.buttons.values());
    root.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const values = [...this.buttons.keys()];
      const now = values.indexOf(event.target.dataset.value);
      const next = values[(now + step + values.length) % values.length];
      onChoose(next);
      this.buttons.get(next).focus();
    };
  }

  show(value) {
    for (const [name, button] of this.buttons) {
      button.setAttribute("aria-checked", name === value);
      button.tabIndex = name === value ? 0 : -1;
    }
  }
}

/** The classes in the picture with their shares; each is a switch. */
export class Legend {
  constructor(root, labels, settings, onChange) {
    this.root = root;
    this.settings = settings;
    this.rows = labels.names.map((name, id) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.name = name;
      const swatch = document.createElement("i");
      swatch.style.background = `rgb(${labels.palette[id].join(" ")})`;
      const text = document.createElement("span");
      text.textContent = name;
      const share = document.createElement("b");
      const bar = document.createElement("em");
      bar.append(document.createElement("u"));
      button.append(swatch, text, bar, share);
      item.append(button);
      item.hidden = true;
      root.append(item);
      button.addEventListener("click", () => onChange("toggle", id));
      button.addEventListener("dblclick", () => onChange("only", id));
      return { name, item, button, share, bar: bar.firstChild, seenAt: -Infinity, text: "" };
    });
    // Room for the classes to come, so that nothing below moves.
    root.style.setProperty("--rows", Math.min(labels.names.length, 12));
    this.ignore = labels.ignore_id;
    this.shown();
  }

  /** Show the shares of a mask; `null` if there is none. */
  take(mask) {
    const now = performance.now();
    for (const [id, row] of this.rows.entries()) {
      const share = mask && id !== this.ignore ? mask.share(id) : 0;
      if (share >= LEAST_SHARE) row.seenAt = now;
      row.item.hidden = now - row.seenAt > KEPT_MS;
      row.item.classList.toggle("absent", share < LEAST_SHARE);
      const text = percent(share);
      if (text === row.text) continue;
      row.text = text;
      row.share.textContent = text;
      row.bar.style.transform = `scaleX(${Math.sqrt(share).toFixed(3)})`;
    }
  }

  /** Show which classes are on. */
  shown() {
    for (const { name, button } of this.rows)
      button.setAttribute("aria-pressed", !this.settings.hidden.has(name));
  }
}

/** Return a share for people. */
export function percent(share) {
  if (share === 0) return "0 %";
  if (share < 0.001) return "< 0.1 %";
  return share < 0.1 ? `${(share * 100).toFixed(1)} %` : `${(share * 100).toFixed(0)} %`;
}

/** Fill a list of names to pick from. */
export function fillSelect(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
}
