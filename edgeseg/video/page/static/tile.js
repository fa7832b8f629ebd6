// One source on the stage: it composes the camera's frame and the label maps as the viewer likes.

/** A label map as a picture: RGBA of each id, enlarged by the canvas. */
class Mask {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d");
    this.plane = null;
    this.counts = new Uint32Array(256);
  }

  take(plane) {
    this.plane = plane;
    this.counts.fill(0);
    const { ids } = plane;
    for (let i = 0; i < ids.length; i++) this.counts[ids[i]]++;
  }

  /** Paint the plane with a table of 256 colours; with `edges`, only where the id changes. */
  paint(colours, edges) {
    const { width, height, ids } = this.plane;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    if (edges) {
      pixels.fill(0);
      for (let y = 0, i = 0; y < height; y++)
        for (let x = 0; x < width; x++, i++) {
          const id = ids[i];
          const right = x + 1 < width ? ids[i + 1] : id;
          const below = y + 1 < height ? ids[i + width] : id;
          if (id !== right || id !== below)
            pixels[i] = colours[id] || colours[id !== right ? right : below];
        }
    } else {
      for (let i = 0; i < ids.length; i++) pixels[i] = colours[ids[i]];
    }
    this.context.putImageData(this.image, 0, 0);
  }

  share(id) {
    return this.plane ? this.counts[id] / this.plane.ids.length : 0;
  }
}

const make = (name, className, text = "") => {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
};

export class Tile {
  /** `settings` is shared by all tiles; `onHover(tile, event)` and `onSplit(share)` are called. */
  constructor(source, settings, { onHover, onSplit, onOpen }) {
    this.source = source;
    this.settings = settings;
    this.header = null;
    this.picture = null;
    this.masks = new Map();
    this.shownAt = 0;

    this.root = make("figure", "tile");
    this.canvas = make("canvas", "view");
    this.canvas.width = 640;
    this.canvas.height = 360;
    this.canvas.setAttribute("role", "img");
    this.context = this.canvas.getContext("2d");
    this.caption = make("figcaption", "");
    this.name = make("b", "", source);
    this.facts = make("span", "", "");
    this.caption.append(this.name, this.facts);
    this.card = make("div", "card");
    this.cardTitle = make("strong", "", "Waiting for the first frame");
    this.cardText = make("span", "", "");
    this.card.append(this.cardTitle, this.cardText);
    this.left = make("span", "engine left");
    this.right = make("span", "engine right");

    this.handle = make("div", "split");
    this.handle.tabIndex = 0;
    this.handle.hidden = true;
    for (const [key, value] of Object.entries({
      role: "slider", "aria-label": "Divider between the engines", "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-orientation": "horizontal",
    })) this.handle.setAttribute(key, value);
    this.root.append(this.canvas, this.left, this.right, this.handle, this.caption, this.card);

    this.listen(onHover, onSplit, onOpen);
    new ResizeObserver(() => this.place()).observe(this.root);
  }

  listen(onHover, onSplit, onOpen) {
    this.canvas.addEventListener("pointermove", (event) => onHover(this, event));
    this.canvas.addEventListener("pointerdown", (event) => onHover(this, event));
    this.canvas.addEventListener("pointerleave", () => onHover(null, null));
    this.canvas.addEventListener("dblclick", () => onOpen(this.source));
    this.name.addEventListener("click", () => onOpen(this.source));

    const move = (event) => {
      const box = this.box();
      onSplit(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    };
    this.handle.addEventListener("pointerdown", (event) => {
      this.handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      this.handle.focus();
      this.handle.onpointermove = move;
    });
    const release = () => { this.handle.onpointermove = null; };
    this.handle.addEventListener("pointerup", release);
    this.handle.addEventListener("pointercancel", release);
    this.handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 0.02;
      const to = {
        ArrowLeft: this.settings.split - step, ArrowDown: this.settings.split - step,
        ArrowRight: this.settings.split + step, ArrowUp: this.settings.split + step,
        Home: 0, End: 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      onSplit(Math.min(1, Math.max(0, to)));
    });
  }

  /** Take a frame from the stream and draw it. */
  take({ header, picture, planes }) {
    this.picture?.close();
    this.picture = picture;
    this.header = header;
    this.shownAt = performance.now();
    for (const plane of planes) {
      if (!this.masks.has(plane.engine)) this.masks.set(plane.engine, new Mask());
      this.masks.get(plane.engine).take(plane);
    }
    for (const name of this.masks.keys())
      if (!planes.some(({ engine }) => engine === name)) this.masks.delete(name);
    this.draw();
  }

  mask(engine) {
    return this.masks.get(engine) ?? null;
  }

  /** Compose the picture anew, after a frame or a change of the settings. */
  draw() {
    if (!this.picture) return;
    const { mode, engines, split, colours } = this.settings;
    const { width, height } = this.picture;
    const across = mode === "side" ? 2 : 1;
    if (this.canvas.width !== width * across || this.canvas.height !== height) {
      this.canvas.width = width * across;
      this.canvas.height = height;
    }

    const [a, b] = engines.map((name) => this.mask(name));
    for (const mask of [a, b]) mask?.paint(colours, mode === "edges");
    const two = engines.length > 1;
    if (mode === "side") {
      this.layer(0, 0, 1, two ? "overlay" : "camera", a);
      this.layer(width, 0, 1, "overlay", two ? b : a);
    } else if (two) {
      this.layer(0, 0, split, mode, a);
      this.layer(0, split, 1, mode, b);
    } else {
      this.layer(0, 0, 1, mode, a);
    }
    this.place();
  }

  /** Draw the part of the picture between two shares of its width. */
  layer(left, from, to, mode, mask) {
    const { context } = this;
    const { width, height } = this.picture;
    context.save();
    context.beginPath();
    context.rect(left + Math.round(from * width), 0, Math.round(to * width) - Math.round(from * width), height);
    context.clip();
    if (mode === "mask") {
      context.fillStyle = "#14181b";
      context.fillRect(left, 0, width, height);
    } else {
      context.drawImage(this.picture, left, 0);
    }
    if (mask?.plane && mode !== "camera") {
      const scale = width / this.header.width;
      const { step } = mask.plane;
      context.globalAlpha = mode === "overlay" ? this.settings.opacity : 1;
      context.imageSmoothingEnabled = mode !== "mask";
      context.drawImage(mask.canvas, left, 0, mask.plane.width * step * scale, mask.plane.height * step * scale);
    }
    context.restore();
  }

  /** Return where the picture is on the screen: the canvas keeps its shape inside of the tile. */
  box() {
    const outer = this.canvas.getBoundingClientRect();
    const scale = Math.min(outer.width / this.canvas.width, outer.height / this.canvas.height);
    const width = this.canvas.width * scale;
    const height = this.canvas.height * scale;
    return {
      left: outer.left + (outer.width - width) / 2, top: outer.top + (outer.height - height) / 2,
      width, height,
    };
  }

  /** Put the divider and the names of the engines where the picture is. */
  place() {
    const { engines, split, mode } = this.settings;
    const two = engines.length > 1 && mode !== "camera" && this.picture !== null;
    const divided = two && mode !== "side";
    this.handle.hidden = !divided;
    this.left.hidden = this.right.hidden = !two;
    if (!two) return;

    const root = this.root.getBoundingClientRect();
    const box = this.box();
    const left = box.left - root.left;
    const top = box.top - root.top;
    this.handle.style.left = `${left + split * box.width}px`;
    this.handle.style.top = `${top}px`;
    this.handle.style.height = `${box.height}px`;
    this.handle.setAttribute("aria-valuenow", Math.round(split * 100));
    this.handle.setAttribute("aria-valuetext", `${engines[0]} on the left ${Math.round(split * 100)} %`);
    const names = engines.map((name) => name + (this.mask(name) ? "" : " …"));
    [this.left.textContent, this.right.textContent] = names;
    this.left.style.left = `${left + 8}px`;
    this.right.style.right = `${root.width - left - box.width + 8}px`;
    this.left.style.top = this.right.style.top = `${top + 8}px`;
    this.left.style.maxWidth = this.right.style.maxWidth = `${box.width / 2 - 28}px`;
  }

  /** Return engine, class id and share under a point of the screen; null beside the picture. */
  at(clientX, clientY) {
    const box = this.box();
    let x = (clientX - box.left) / box.width;
    const y = (clientY - box.top) / box.height;
    if (!this.header || x < 0 || x >= 1 || y < 0 || y >= 1) return null;

    const { mode, engines, split } = this.settings;
    let engine = engines[0];
    if (mode === "side") {
      if (x >= 0.5 && engines.length > 1) engine = engines[1];
      x = (x * 2) % 1;
    } else if (engines.length > 1 && x >= split) {
      engine = engines[1];
    }
    const mask = this.mask(engine);
    if (!mask) return null;
    const { width, height, step, ids } = mask.plane;
    const column = Math.min(width - 1, Math.floor(x * this.header.width / step));
    const row = Math.min(height - 1, Math.floor(y * this.header.height / step));
    const id = ids[row * width + column];
    return { engine, id, share: mask.share(id) };
  }

  /** Return the share of the pixels on which the two engines disagree; null with one. */
  difference() {
    const [a, b] = this.settings.engines.map((name) => this.mask(name)?.plane);
    if (!a || !b || a.ids.length !== b.ids.length) return null;
    let different = 0;
    for (let i = 0; i < a.ids.length; i++) different += a.ids[i] !== b.ids[i];
    return different / a.ids.length;
  }

  /** Show the card over the picture, or take it away. */
  say(title, text = "") {
    this.card.hidden = title === "";
    this.root.classList.toggle("quiet", title !== "");
    if (this.cardTitle.textContent !== title) this.cardTitle.textContent = title;
    if (this.cardText.textContent !== text) this.cardText.textContent = text;
  }
}
