/** The posterior means as dots. A dot is a picture that is drawn once a class and copied thousands of times. */

import { classColours } from "./dom.js";

/** One dot of a colour, `radius` in pixels of the canvas, with an edge that keeps dots apart. */
function sprite(colour, edge, radius) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 2 * Math.ceil(radius + 1);
  const context = canvas.getContext("2d");
  const middle = canvas.width / 2;
  for (const [fill, size] of [[edge, radius + 0.75], [colour, radius]]) {
    context.fillStyle = fill;
    context.beginPath();
    context.arc(middle, middle, size, 0, 2 * Math.PI);
    context.fill();
  }
  return canvas;
}

export class Dots {
  constructor() {
    [this.pairs, this.labels, this.sprites] = [new Float32Array(), null, []];
  }

  /** Float pairs, and a class each or null. */
  set(pairs, labels) {
    Object.assign(this, { pairs, labels });
  }

  /** Draw the dots anew in the colours of now. */
  paint(classes, radius) {
    const edge = getComputedStyle(document.documentElement).getPropertyValue("--dot-edge").trim() || "transparent";
    this.sprites = classColours(this.labels ? classes : 1).map((colour) => sprite(colour, edge, radius));
  }

  /** Draw those that are seen, `shown` alone at full strength where it is a class. */
  draw(context, view, ratio, shown) {
    if (shown === null) return this.#draw(context, view, ratio, () => true, 0.9);
    this.#draw(context, view, ratio, (label) => label !== shown, 0.07);
    return this.#draw(context, view, ratio, (label) => label === shown, 1);
  }

  #draw(context, view, ratio, isDrawn, alpha) {
    const { pairs, labels, sprites } = this;
    const scale = view.scale * ratio;
    const half = (sprites[0]?.width ?? 0) / 2;
    const left = (view.width * ratio) / 2 - view.x * scale - half;
    const top = (view.height * ratio) / 2 + view.y * scale - half;
    const [width, height] = [view.width * ratio, view.height * ratio];
    context.globalAlpha = alpha;
    for (let i = 0; i < pairs.length; i += 2) {
      const label = labels ? labels[i >> 1] : 0;
      if (!isDrawn(label)) continue;
      const x = left + pairs[i] * scale;
      const y = top - pairs[i + 1] * scale;
      if (x > -20 && y > -20 && x < width && y < height) context.drawImage(sprites[label], x, y);
    }
    context.globalAlpha = 1;
  }

  /** The index of the dot that is nearest to a point of the plane, or -1. */
  nearest(u, v) {
    let [best, least] = [-1, Infinity];
    for (let i = 0; i < this.pairs.length; i += 2) {
      const distance = (this.pairs[i] - u) ** 2 + (this.pairs[i + 1] - v) ** 2;
      if (distance < least) [best, least] = [i / 2, distance];
    }
    return best;
  }
}
