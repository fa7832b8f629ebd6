// Three small curves over the last minute: FPS, age, time of the network.

const SPAN_MS = 60_000;
const REDRAW_MS = 250;

const CURVES = [
  { key: "fps", title: "FPS", unit: "", digits: 1, colour: "--curve-a", worst: "low" },
  { key: "age_ms", title: "Age", unit: " ms", digits: 0, colour: "--curve-b", worst: "high" },
  { key: "network_ms", title: "Network", unit: " ms", digits: 1, colour: "--curve-c", worst: "high" },
];

/** Return the value below which a share of the values lies. */
function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

export class Curves {
  constructor(root) {
    this.points = []; // [time, header]
    this.drawnAt = 0;
    this.rows = CURVES.map((curve) => {
      const row = document.createElement("div");
      row.className = "curve";
      const title = document.createElement("span");
      const value = document.createElement("b");
      const note = document.createElement("small");
      const canvas = document.createElement("canvas");
      title.textContent = curve.title;
      value.textContent = "–";
      canvas.setAttribute("role", "img");
      row.append(title, value, note, canvas);
      root.append(row);
      return { curve, value, note, canvas };
    });
  }

  clear() {
    this.points = [];
    this.drawnAt = 0;
  }

  add(header) {
    const now = performance.now();
    this.points.push([now, header]);
    while (this.points.length && this.points[0][0] < now - SPAN_MS) this.points.shift();
    if (now - this.drawnAt > REDRAW_MS) this.draw(now);
  }

  draw(now = performance.now()) {
    this.drawnAt = now;
    for (const row of this.rows) this.plot(row, now);
  }

  plot({ curve, value, note, canvas }, now) {
    const points = this.points.filter(([, header]) => header[curve.key] !== null);
    const values = points.map(([, header]) => header[curve.key]);
    const show = (number) => number.toFixed(curve.digits) + curve.unit;
    value.textContent = values.length ? show(values.at(-1)) : "–";
    const low = curve.worst === "low";
    note.textContent = values.length
      ? (low ? `p5 ${show(quantile(values, 0.05))}` : `p95 ${show(quantile(values, 0.95))}`) : "";
    canvas.setAttribute("aria-label", `${curve.title}, last minute: ${value.textContent}, ${note.textContent}`);

    const ratio = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (width === 0) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, width, height);

    // The ground line, then the curve; zero is at the bottom.
    context.fillStyle = style.getPropertyValue("--line");
    context.fillRect(0, height - ratio, width, ratio);
    if (values.length < 2) return;
    const top = Math.max(...values) * 1.15 || 1;
    const x = (time) => width * (1 - (now - time) / SPAN_MS);
    const y = (number) => height - ratio - (height - 2 * ratio) * (number / top);

    context.strokeStyle = style.getPropertyValue(curve.colour);
    context.lineWidth = 1.5 * ratio;
    context.lineJoin = "round";
    context.beginPath();
    points.forEach(([time], i) => context.lineTo(x(time), y(values[i])));
    context.stroke();
    context.lineTo(x(points.at(-1)[0]), height);
    context.lineTo(x(points[0][0]), height);
    context.globalAlpha = 0.12;
    context.fillStyle = context.strokeStyle;
    context.fill();
    context.globalAlpha = 1;
  }
}
