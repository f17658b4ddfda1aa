/** The path of one interpolation method: its strip, and one step enlarged. */

import { element } from "../shared/dom.js";

const MIN_WIDTH = 46; // pixels of an image in the strip
const MIN_SHOWN = 6; // images in the strip

export class Path {
  constructor(title, text) {
    [this.bitmap, this.frames, this.title] = [null, 0, title];
    this.large = element("canvas", { className: "digit morph-large", width: 28, height: 28, attributes: { role: "img", "aria-label": `${title}: no step yet` } });
    this.strip = element("canvas", { className: "morph-strip", width: 28, height: 28, attributes: { role: "img", "aria-label": `${title}: no strip yet` } });
    this.stripFigure = element("div", { className: "figure strip-figure" }, this.strip);
    this.root = element("figure", { className: "shown" }, element("figcaption", {}, element("strong", {}, title), ` ${text}`), this.large, this.stripFigure);
    new ResizeObserver(() => this.#paintStrip()).observe(this.strip);
  }

  /** Show a strip of frames of the model's image size; the path closes the bitmap later. */
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

  /** Enlarge frame `index`. */
  step(index) {
    if (!this.bitmap) return;
    const { width, height } = this.model;
    Object.assign(this.large, { width, height });
    this.large.getContext("2d").drawImage(this.bitmap, index * width, 0, width, height, 0, 0, width, height);
    this.large.setAttribute("aria-label", `${this.title}: step ${index + 1} of ${this.frames}`);
  }

  /** Paint evenly spaced frames, as many as fit the strip's width. */
  #paintStrip() {
    if (!this.bitmap) return;
    const { strip, frames, bitmap } = this;
    const { width, height } = this.model;
    const count = Math.min(frames, Math.max(MIN_SHOWN, Math.floor(strip.clientWidth / MIN_WIDTH)));
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
