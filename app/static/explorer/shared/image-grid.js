/** A grid of images, one stop of the Tab key: the arrow keys move in it, Enter or a click chooses. */

import { element } from "./dom.js";
import { address } from "./images.js";

const JUMPS = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: (columns) => -columns, ArrowDown: (columns) => columns };

export class ImageGrid {
  /** `onChoose(index)` is called with the index of the chosen image. */
  constructor(title, onChoose) {
    Object.assign(this, { title, onChoose, tiles: [] });
    this.grid = element("div", { className: "image-grid-tiles", attributes: { role: "group" } });
    this.root = element("div", { className: "image-grid figure" }, this.grid);
    this.grid.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Reserve the space of `count` images, so that nothing moves when they arrive. */
  reserve(count, { width, height }) {
    this.columns = Math.ceil(Math.sqrt(count));
    this.grid.style.gridTemplateColumns = `repeat(${this.columns}, minmax(0, 1fr))`;
    this.grid.style.aspectRatio = `${this.columns * width} / ${Math.ceil(count / this.columns) * height}`;
  }

  /** Show base64 PNGs of a model's images. */
  show(images, { width, height }) {
    const tiles = this.tiles.length === images.length ? this.tiles : images.map((_, i) => this.#tile(i, width, height));
    for (const [i, tile] of tiles.entries()) {
      Object.assign(tile.firstChild, { src: address(images[i]), width, height });
      tile.setAttribute("aria-pressed", "false");
    }
    this.grid.setAttribute("aria-label", `${this.title}, ${images.length} images; arrows move, Enter chooses`);
    if (tiles !== this.tiles) this.grid.replaceChildren(...tiles);
    this.tiles = tiles;
  }

  /** Mark the image with this index; null marks none. */
  mark(index) {
    for (const [i, tile] of this.tiles.entries()) tile.setAttribute("aria-pressed", String(i === index));
  }

  #tile(index, width, height) {
    const tile = element("button", { type: "button", className: "tile", tabIndex: index ? -1 : 0 }, element("img", { className: "digit", width, height, alt: "" }));
    tile.setAttribute("aria-label", `${this.title} ${index + 1}`);
    tile.onclick = () => this.onChoose(index);
    tile.onfocus = () => this.tiles.forEach((other) => (other.tabIndex = other === tile ? 0 : -1));
    return tile;
  }

  #key(event) {
    const jump = JUMPS[event.key];
    if (!jump) return;
    event.preventDefault();
    const next = this.tiles[this.tiles.indexOf(document.activeElement) + jump(this.columns)];
    next?.focus();
  }
}
