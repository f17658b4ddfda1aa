/** The manifold behind the dots: a grid of decoded latents that fills what is seen. */

const MOST = 256; // pictures in one request; a server may be set to take fewer
const FEWEST = 16;
const PAUSE = 120; // milliseconds without a change before it is asked for

export class Backdrop {
  /** `onChange()` is called when there is something new to draw. */
  constructor(app, onChange) {
    Object.assign(this, { onChange, picture: null, timer: 0, generation: 0, most: MOST });
    this.ask = app.latest(async (view, latentAt, generation) => {
      const grid = makeGrid(view, latentAt, this.most);
      const { latents, columns } = grid;
      const picture = await app.picture("decode/image", { body: { latents }, query: { columns } }).catch((error) => {
        if (error.status !== 422 || this.most <= FEWEST) throw error;
        this.most /= 2;
      });
      if (generation !== this.generation) return;
      if (!picture) return this.refresh(view, latentAt);
      this.picture = { ...grid, image: faded(picture.bitmap) };
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
      this.ask(view, latentAt, this.generation);
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

/** Square cells over the view, `most` of them, each with the latent of its middle. */
function makeGrid(view, latentAt, most) {
  const rowsOf = (columns) => Math.ceil((view.height * columns) / view.width);
  let columns = Math.max(1, Math.floor(Math.sqrt((most * view.width) / view.height)));
  while (columns > 1 && columns * rowsOf(columns) > most) columns--;
  const cell = view.width / columns;
  const rows = Math.min(rowsOf(columns), Math.floor(most / columns));
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
