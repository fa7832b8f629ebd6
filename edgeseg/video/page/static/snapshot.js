// Save what the viewer sees, and the mask beside it, as one PNG with a line that says what it is.

const LINE = 36;

/** Return the name of the file and a promise of the PNG. */
export async function snapshot(tile, labels) {
  const { header, canvas, settings } = tile;
  const plane = tile.mask(settings.engines[0])?.plane;
  const height = canvas.height;
  const maskWidth = plane ? tile.picture.width : 0;
  const sheet = document.createElement("canvas");
  sheet.width = canvas.width + maskWidth;
  sheet.height = height + LINE;
  const context = sheet.getContext("2d");
  context.fillStyle = "#14181b";
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.drawImage(canvas, 0, 0);

  if (plane) {
    // The mask has the palette's own colours, and all classes.
    const small = document.createElement("canvas");
    small.width = plane.width;
    small.height = plane.height;
    const image = small.getContext("2d").createImageData(plane.width, plane.height);
    plane.ids.forEach((id, i) => {
      const [r, g, b] = labels.palette[id] ?? [0, 0, 0];
      image.data.set([r, g, b, 255], i * 4);
    });
    small.getContext("2d").putImageData(image, 0, 0);
    const scale = tile.picture.width / header.width;
    context.imageSmoothingEnabled = false;
    context.drawImage(small, canvas.width, 0, plane.width * plane.step * scale, plane.height * plane.step * scale);
  }

  const time = new Date().toISOString().slice(0, 19);
  context.fillStyle = "#e5e9ec";
  context.font = `${LINE * 0.45}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const engines = settings.engines.join(" | ");
  context.fillText(`${tile.source}   frame ${header.index}   ${engines}   ${time.replace("T", " ")} UTC`, 12, height + LINE / 2);

  const blob = await new Promise((done) => sheet.toBlob(done, "image/png"));
  return { blob, name: `${tile.source}-${String(header.index).padStart(6, "0")}.png` };
}

/** Hand a file to the browser's downloads. */
export function save({ blob, name }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
