/** The backdrop of the map: a grid of decoded latents that fills the view behind the dots. */

const MAX_LATENTS = 256; // in one request; halved if the server allows fewer
const MIN_LATENTS = 16;
const PAUSE = 120; // milliseconds without a change before a request

export class Backdrop {
  /** `onChange()` is called when the backdrop must be drawn again. */
  constructor(app, onChange) {
    Object.assign(this, { onChange, grid: null, timer: 0, generation: 0, limit: MAX_LATENTS });
    this.ask = app.latest(async (view, latentAt, generation) => {
      const grid = makeGrid(view, latentAt, this.limit);
      const { latents, columns } = grid;
      const image = await app.image("decode/image", { body: { latents }, query: { columns } }).catch((error) => {
        if (error.status !== 422 || this.limit <= MIN_LATENTS) throw error;
        this.limit /= 2;
      });
      if (generation !== this.generation) return;
      if (!image) return this.refresh(view, latentAt);
      this.grid = { ...grid, image: adapted(image.bitmap) };
      onChange();
    });
  }

  /** Remove the grid. */
  clear() {
    clearTimeout(this.timer);
    this.generation++;
    this.grid = null;
    this.onChange();
  }

  /** Request the grid for `view` once the view rests; `latentAt(u, v)` is the latent at a point of the plane. */
  refresh(view, latentAt) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.generation++;
      this.ask(view, latentAt, this.generation);
    }, PAUSE);
  }

  /** Draw the grid at its place in the plane. */
  draw(context, view, ratio) {
    if (!this.grid) return;
    const { left, top, right, bottom, image } = this.grid;
    const [x0, y0] = view.toPixels(left, top).map((value) => value * ratio);
    const [x1, y1] = view.toPixels(right, bottom).map((value) => value * ratio);
    context.globalAlpha = Number(getComputedStyle(document.documentElement).getPropertyValue("--backdrop")) || 0.5;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x0, y0, x1 - x0, y1 - y0);
    context.globalAlpha = 1;
  }
}

/** Square cells over the view, at most `limit`, each with the latent at its center. */
function makeGrid(view, latentAt, limit) {
  const rowsOf = (columns) => Math.ceil((view.height * columns) / view.width);
  let columns = Math.max(1, Math.floor(Math.sqrt((limit * view.width) / view.height)));
  while (columns > 1 && columns * rowsOf(columns) > limit) columns--;
  const cell = view.width / columns;
  const rows = Math.min(rowsOf(columns), Math.floor(limit / columns));
  const edge = (view.height - rows * cell) / 2;
  const latents = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      latents.push(latentAt(...view.toPlane((column + 0.5) * cell, edge + (row + 0.5) * cell)));
    }
  }
  const [left, top] = view.toPlane(0, edge);
  const [right, bottom] = view.toPlane(columns * cell, edge + rows * cell);
  return { latents, columns, left, top, right, bottom };
}

/** The image for the current theme: inverted, dark on light, on a light page. */
function adapted(bitmap) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  if (document.documentElement.dataset.theme === "light") {
    context.globalCompositeOperation = "difference";
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  bitmap.close();
  return canvas;
}
