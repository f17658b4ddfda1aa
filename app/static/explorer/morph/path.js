/** One way through the points: its strip, and one step of it large. */

import { element } from "../shared/dom.js";

const NARROWEST = 46; // pixels of a picture of the strip
const FEWEST = 6;

export class Path {
  constructor(title, told) {
    [this.bitmap, this.frames, this.title] = [null, 0, title];
    this.large = element("canvas", { className: "digit morph-large", width: 28, height: 28, attributes: { role: "img", "aria-label": `${title}: no step yet` } });
    this.strip = element("canvas", { className: "morph-strip", width: 28, height: 28, attributes: { role: "img", "aria-label": `${title}: no strip yet` } });
    this.stripFigure = element("div", { className: "figure strip-figure" }, this.strip);
    this.root = element("figure", { className: "shown" }, element("figcaption", {}, element("strong", {}, title), ` ${told}`), this.large, this.stripFigure);
    new ResizeObserver(() => this.#paintStrip()).observe(this.strip);
  }

  /** Show a strip of frames of a model's size, a bitmap that is this path's from now on. */
  set(bitmap, model) {
    this.bitmap?.close();
    Object.assign(this, { bitmap, model, frames: Math.round(bitmap.width / model.width) });
    this.#paintStrip();
  }

  clear() {
    this.bitmap?.close();
    [this.bitmap, this.frames] = [null, 0];
    for (const canvas of [this.large, this.strip]) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  /** Show frame `index` large. */
  step(index) {
    if (!this.bitmap) return;
    const { width, height } = this.model;
    Object.assign(this.large, { width, height });
    this.large.getContext("2d").drawImage(this.bitmap, index * width, 0, width, height, 0, 0, width, height);
    this.large.setAttribute("aria-label", `${this.title}: step ${index + 1} of ${this.frames}`);
  }

  /** As many of the frames, evenly, as are wide enough to be seen. */
  #paintStrip() {
    if (!this.bitmap) return;
    const { strip, frames, bitmap } = this;
    const { width, height } = this.model;
    const count = Math.min(frames, Math.max(FEWEST, Math.floor(strip.clientWidth / NARROWEST)));
    Object.assign(strip, { width: count * width, height });
    strip.style.aspectRatio = `${count * width} / ${height}`;
    const context = strip.getContext("2d");
    for (let i = 0; i < count; i++) {
      const frame = count > 1 ? Math.round((i * (frames - 1)) / (count - 1)) : 0;
      context.drawImage(bitmap, frame * width, 0, width, height, i * width, 0, width, height);
    }
    strip.setAttribute("aria-label", `${this.title}: a strip of ${count} of ${frames} steps`);
  }
}
