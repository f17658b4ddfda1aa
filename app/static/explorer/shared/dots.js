/** Posterior means as dots, written pixel by pixel: thousands of canvas paths or images would take several times as long. */

import { classColors } from "./dom.js";

const FAINT = 0.09; // opacity of the dots of other classes while one class is highlighted

/** The RGBA pixels of one dot with an edge that separates it from its neighbors; `radius` in canvas pixels. */
function drawDot(color, edge, radius) {
  const size = 2 * Math.ceil(radius + 1) + 1;
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (const [fill, length] of [[edge, radius + 0.75], [color, radius]]) {
    context.fillStyle = fill;
    context.beginPath();
    context.arc(size / 2, size / 2, length, 0, 2 * Math.PI);
    context.fill();
  }
  return context.getImageData(0, 0, size, size);
}

/** The non-empty pixels of a dot: their positions, colors and opacities (0 to 255). */
function stamp({ data, width }, strength) {
  const used = Array.from({ length: width * width }, (_, i) => i).filter((i) => data[4 * i + 3]);
  return {
    size: width,
    across: Int32Array.from(used, (i) => i % width),
    down: Int32Array.from(used, (i) => Math.floor(i / width)),
    rgb: Uint32Array.from(used, (i) => (data[4 * i + 2] << 16) | (data[4 * i + 1] << 8) | data[4 * i]),
    alpha: Uint8Array.from(used, (i) => Math.round(data[4 * i + 3] * strength)),
  };
}

/** Blend `rgb` with opacity `alpha` over the pixel `below`; pixels are ABGR, which is RGBA in little-endian order. */
function over(below, rgb, alpha) {
  const part = ((below >>> 24) * (255 - alpha)) / 255;
  const sum = alpha + part;
  const mix = (shift) => (((rgb >> shift) & 255) * alpha + ((below >> shift) & 255) * part) / sum;
  return ((sum << 24) | (mix(16) << 16) | (mix(8) << 8) | mix(0)) >>> 0;
}

export class Dots {
  constructor() {
    Object.assign(this, { pairs: new Float32Array(), labels: null, full: [], faint: [], image: null });
  }

  /** Set the positions, a flat array of pairs, and the class of each, or null. */
  set(pairs, labels) {
    Object.assign(this, { pairs, labels });
  }

  /** Prepare the dots in the colors of the current theme. */
  paint(classes, radius) {
    const edge = getComputedStyle(document.documentElement).getPropertyValue("--dot-edge").trim() || "transparent";
    const dots = classColors(this.labels ? classes : 1).map((color) => drawDot(color, edge, radius));
    this.full = dots.map((one) => stamp(one, 1));
    this.faint = dots.map((one) => stamp(one, FAINT));
  }

  /** Draw the visible dots; if `shown` is a class, the others are faint. */
  draw(context, view, ratio, shown) {
    const { width, height } = context.canvas;
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    if (shown !== null) this.#stamp(view, ratio, this.faint, (label) => label !== shown);
    this.#stamp(view, ratio, this.full, shown === null ? () => true : (label) => label === shown);
    context.putImageData(this.image, 0, 0);
  }

  #stamp(view, ratio, stamps, isDrawn) {
    const { pairs, labels } = this;
    const { width, height } = this.image;
    const scale = view.scale * ratio;
    const half = (stamps[0]?.size ?? 0) >> 1;
    const left = (view.width * ratio) / 2 - view.x * scale - half;
    const top = (view.height * ratio) / 2 + view.y * scale - half;
    for (let i = 0; i < pairs.length; i += 2) {
      const label = labels ? labels[i >> 1] : 0;
      if (!isDrawn(label)) continue;
      const one = stamps[label];
      const x = Math.round(left + pairs[i] * scale);
      const y = Math.round(top - pairs[i + 1] * scale);
      if (x >= 0 && y >= 0 && x + one.size <= width && y + one.size <= height) this.#put(one, y * width + x, width);
    }
  }

  #put({ across, down, rgb, alpha }, start, width) {
    const { pixels } = this;
    for (let i = 0; i < rgb.length; i++) {
      const place = start + down[i] * width + across[i];
      if (alpha[i] === 255) pixels[place] = 0xff000000 | rgb[i];
      else pixels[place] = over(pixels[place], rgb[i], alpha[i]);
    }
  }

  /** Index of the dot nearest to (u, v), or -1 if there are no dots. */
  nearest(u, v) {
    let [best, least] = [-1, Infinity];
    for (let i = 0; i < this.pairs.length; i += 2) {
      const distance = (this.pairs[i] - u) ** 2 + (this.pairs[i + 1] - v) ** 2;
      if (distance < least) [best, least] = [i / 2, distance];
    }
    return best;
  }
}
