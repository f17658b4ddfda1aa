/** The lens: the decoded image at the pointer, which it follows over the map; the style sheet enlarges it. */

import { element } from "../shared/dom.js";

const GAP = 18; // pixels between the pointer and the lens

/** Show a bitmap on a canvas, pixel for pixel. */
export function paint(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

export class Lens {
  constructor() {
    this.canvas = element("canvas", { className: "digit", width: 28, height: 28 });
    this.caption = element("span", { className: "lens-caption" });
    this.root = element("div", { className: "lens", hidden: true, attributes: { "aria-hidden": "true" } }, this.canvas, this.caption);
  }

  /** Place the lens beside the pixel (x, y) of a stage of this width, above it if there is room. */
  move(x, y, width) {
    this.root.hidden = false;
    const { offsetWidth, offsetHeight } = this.root;
    const left = x + GAP + offsetWidth > width ? x - GAP - offsetWidth : x + GAP;
    const top = y - GAP - offsetHeight < 0 ? y + GAP : y - GAP - offsetHeight;
    this.root.style.transform = `translate(${Math.round(Math.max(left, 4))}px, ${Math.round(top)}px)`;
  }

  hide() {
    this.root.hidden = true;
  }
}
