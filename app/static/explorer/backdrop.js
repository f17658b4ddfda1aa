/** The manifold behind the dots: a grid of decoded latents that fills what is seen. */

const MOST = 256; // pictures in one request, the server's default
const PAUSE = 120; // milliseconds without a change before it is asked for

export class Backdrop {
  /** `onChange()` is called when there is something new to draw. */
  constructor(app, onChange) {
    Object.assign(this, { onChange, picture: null, timer: 0, generation: 0 });
    this.ask = app.latest(async (grid, generation) => {
      const { bitmap } = await app.picture("decode/image", { body: { latents: grid.latents }, query: { columns: grid.columns } });
      if (generation !== this.generation) return;
      this.picture = { ...grid, image: faded(bitmap) };
      onChange();
    });
  }

  /** Forget what is there. */
  clear() {
    clearTimeout(this.timer);
    this.generation++;
    this.picture = null;
    this.onChange();
  }

  /** Ask for the grid of what `view` shows, once it rests; `latentAt(u, v)` is the latent of a point of the plane. */
  refresh(view, latentAt) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.generation++;
      this.ask(makeGrid(view, latentAt), this.generation);
    }, PAUSE);
  }

  /** Draw it where it lies in the plane. */
  draw(context, view, ratio) {
    if (!this.picture) return;
    const { left, top, right, bottom, image } = this.picture;
    const [x0, y0] = view.toPixels(left, top).map((value) => value * ratio);
    const [x1, y1] = view.toPixels(right, bottom).map((value) => value * ratio);
    context.globalAlpha = Number(getComputedStyle(document.documentElement).getPropertyValue("--backdrop")) || 0.5;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x0, y0, x1 - x0, y1 - y0);
    context.globalAlpha = 1;
  }
}

/** Square cells over the view, each with the latent of its middle. */
function makeGrid(view, latentAt) {
  const columns = Math.max(1, Math.floor(Math.sqrt((MOST * view.width) / view.height)));
  const cell = view.width / columns;
  const rows = Math.max(1, Math.min(Math.floor(MOST / columns), Math.ceil(view.height / cell)));
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

/** The picture for any theme: dark on light where the page is light. */
function faded(bitmap) {
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
