/** A small scatter plot of posterior means with marks on it; unlike the map it does not move. */

import { element } from "./dom.js";
import { Dots } from "./dots.js";
import { View } from "./view.js";

export class Scatter {
  constructor(label, radius = 1.2) {
    [this.view, this.dots, this.radius, this.classes] = [new View(), new Dots(), radius, 0];
    this.marks = { ellipses: [], circle: null, crosses: [] };
    this.canvas = element("canvas", { className: "scatter-canvas", attributes: { role: "img", "aria-label": label } });
    this.root = element("div", { className: "scatter figure" }, this.canvas);
    new ResizeObserver(() => this.draw()).observe(this.root);
    document.addEventListener("themechange", () => this.draw());
  }

  /** Set the positions [u, v] and the class of each, or null; mark the circle, if any, before this call. */
  set(mean, labels) {
    this.dots.set(Float32Array.from(mean.flat()), labels);
    this.classes = labels ? Math.max(...labels) + 1 : 1;
    this.view.fit(this.dots.pairs);
    if (this.marks.circle) this.#include(this.marks.circle);
    this.draw();
  }

  /** Enlarge the view so that it holds the circle around the origin. */
  #include(radius) {
    const { view } = this;
    const half = view.span / 2;
    const low = [view.x, view.y].map((middle) => Math.min(middle - half, -1.06 * radius));
    const high = [view.x, view.y].map((middle) => Math.max(middle + half, 1.06 * radius));
    const [x, y] = low.map((value, i) => (value + high[i]) / 2);
    Object.assign(view.home, { x, y, span: Math.max(high[0] - low[0], high[1] - low[1]) });
    view.reset();
  }

  /** `ellipses` are {mean, std} of two values each, `circle` a radius around the origin, `crosses` points. */
  mark(marks) {
    Object.assign(this.marks, marks);
    this.draw();
  }

  draw() {
    const { canvas, view, dots } = this;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !dots.pairs.length) return;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    view.resize(width, height);
    const context = canvas.getContext("2d");
    dots.paint(this.classes, this.radius * ratio);
    dots.draw(context, view, ratio, null);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#marks(context);
  }

  #marks(context) {
    const { view, marks } = this;
    const style = getComputedStyle(document.documentElement);
    const line = (color, width) => Object.assign(context, { strokeStyle: style.getPropertyValue(color), lineWidth: width });
    const round = ([x, y], across, up) => {
      context.beginPath();
      context.ellipse(...view.toPixels(x, y), across * view.scale, up * view.scale, 0, 0, 2 * Math.PI);
      context.stroke();
    };
    if (marks.circle) (line("--ink", 2), round([0, 0], marks.circle, marks.circle));
    for (const point of marks.crosses) this.#cross(context, line, view.toPixels(...point));
    for (const { mean, std } of marks.ellipses) {
      (line("--paper", 5), round(mean, ...std.map((s) => Math.max(2 * s, 6 / view.scale))));
      (line("--accent", 2.5), round(mean, ...std.map((s) => Math.max(2 * s, 6 / view.scale))));
    }
  }

  #cross(context, line, [x, y]) {
    for (const [color, width] of [["--paper", 5], ["--ink", 2]]) {
      line(color, width);
      context.beginPath();
      for (const side of [-1, 1]) (context.moveTo(x - 4, y - 4 * side), context.lineTo(x + 4, y + 4 * side));
      context.stroke();
    }
  }
}
