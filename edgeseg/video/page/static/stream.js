// The connection to the server: it decodes messages, and connects again when the server is back.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5000;
const PING_MS = 2000;

/** Inflate bytes that zlib compressed. */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Take a binary message apart: see protocol.py. */
async function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let start = 4 + length;
  const take = (size) => new Uint8Array(buffer, start, size, (start += size));

  const picture = createImageBitmap(new Blob([take(header.jpeg)], { type: "image/jpeg" }));
  const planes = header.planes.map((plane, i) =>
    inflate(take(header.lengths[i])).then((ids) => ({ ...plane, ids })));
  return { header, picture: await picture, planes: await Promise.all(planes) };
}

/**
 * Deliver hello, frames and the state of the connection to three callbacks.
 *
 * States: "connecting", "live", "lost" (the server is gone), "refused" (the token is not valid).
 */
export class Stream {
  constructor({ onHello, onFrame, onState }) {
    this.onHello = onHello;
    this.onFrame = onFrame;
    this.onState = onState;
    this.linkMs = 0; // half of the time to the server and back
    this.choice = null;
    this.wait = FIRST_WAIT_MS;
    this.build = null;
    setInterval(() => this.send({ ping: performance.now() }), PING_MS);
    document.addEventListener("visibilitychange", () => this.subscribe(this.choice));
    addEventListener("online", () => this.retry());
    this.connect();
  }

  connect() {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = url.hash = "";
    this.timer = null;
    const socket = this.socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";

    let queue = Promise.resolve();
    socket.onmessage = ({ data }) => {
      const arrived = performance.now();
      if (typeof data === "string") this.hear(JSON.parse(data));
      else queue = queue.then(() => this.show(socket, data, arrived)).catch(console.error);
    };
    socket.onclose = () => this.closed();
  }

  hear(message) {
    if (message.type === "pong") {
      this.linkMs = (performance.now() - message.ping) / 2;
      return;
    }
    if (this.build !== null && this.build !== message.build) {
      location.reload(); // the server was updated
      return;
    }
    this.build = message.build;
    this.wait = FIRST_WAIT_MS;
    this.onState("live");
    this.onHello(message);
  }

  async show(socket, data, arrived) {
    const frame = await unpack(data);
    if (frame.header.age_ms !== null)
      frame.header.age_ms += this.linkMs + performance.now() - arrived;
    this.onFrame(frame);
    if (socket.readyState === WebSocket.OPEN)
      socket.send(JSON.stringify({ ack: frame.header.source }));
  }

  /** Tell the server what this viewer looks at; nothing while the page is hidden. */
  subscribe(choice) {
    this.choice = choice;
    if (choice === null) return;
    this.send(document.hidden ? { ...choice, sources: [] } : choice);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async closed() {
    this.onState("lost");
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 1.6);
    try {
      const answer = await fetch("healthz", { cache: "no-store" });
      if (answer.status === 401) this.onState("refused");
    } catch { /* the server is not back yet */ }
  }

  retry() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.connect();
  }
}
