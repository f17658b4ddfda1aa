/** The map's three canvases, one over the other: the backdrop, the dots, and the marks (pin, cursor, ellipses). */

import { element } from "../shared/dom.js";

const RADIUS = 2.4; // of a dot, in CSS pixels

export class Chart {
  /** `parts`: {view, dots, backdrop}; `marks()` -> {pin: [u, v], cursor: [u, v] or null, ellipses: [{mean, covariance}]}. */
  constructor({ view, dots, backdrop, marks }) {
    Object.assign(this, { view, dots, backdrop, marks, classes: 0, shown: null, hasDots: true });
    this.base = element("canvas", { className: "layer", attributes: { "aria-hidden": "true" } });
    this.middle = element("canvas", { className: "layer", attributes: { "aria-hidden": "true" } });
    this.over = element("canvas", { className: "layer", tabIndex: 0, attributes: { role: "application" } });
    [this.isStale, this.frame, this.ratio] = [true, 0, 1];
  }

  /** Take the size of the stage and the current colors. */
  measure(stage) {
    const { clientWidth: width, clientHeight: height } = stage;
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.view.resize(width, height);
    for (const canvas of [this.base, this.middle, this.over]) {
      [canvas.width, canvas.height] = [Math.round(width * this.ratio), Math.round(height * this.ratio)];
    }
    this.repaint();
  }

  /** Draw everything in the current colors. */
  repaint() {
    this.dots.paint(this.classes, RADIUS * this.ratio);
    const style = getComputedStyle(document.documentElement);
    [this.ink, this.accent, this.paper] = ["--ink", "--accent", "--paper"].map((name) => style.getPropertyValue(name).trim());
    this.redraw();
  }

  /** Draw everything, or only the marks, in the next animation frame. */
  redraw(isAll = true) {
    this.isStale ||= isAll;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const start = performance.now();
      if (this.isStale) this.#drawBase();
      this.isStale = false;
      this.#drawOver();
      this.over.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: performance.now() - start }));
    });
  }

  #drawBase() {
    const context = this.base.getContext("2d");
    context.clearRect(0, 0, this.base.width, this.base.height);
    this.backdrop.draw(context, this.view, this.ratio);
    this.#drawAxes(context);
    this.middle.hidden = !this.hasDots;
    if (this.hasDots) this.dots.draw(this.middle.getContext("2d"), this.view, this.ratio, this.shown);
  }

  #drawAxes(context) {
    const [x, y] = this.view.toPixels(0, 0).map((value) => Math.round(value * this.ratio) + 0.5);
    context.globalAlpha = 0.18;
    context.strokeStyle = this.ink;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(this.base.width, y);
    context.moveTo(x, 0);
    context.lineTo(x, this.base.height);
    context.stroke();
    context.globalAlpha = 1;
  }

  #drawOver() {
    const context = this.over.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.over.width, this.over.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const { pin, cursor, ellipses } = this.marks();
    for (const each of ellipses) this.#ellipse(context, each);
    this.#ring(context, pin, 9, 3);
    if (cursor) this.#ring(context, cursor, 5, 1.5);
  }

  #ring(context, point, radius, width) {
    const [x, y] = this.view.toPixels(...point);
    for (const [color, line] of [[this.paper, width + 3], [this.accent, width]]) {
      context.strokeStyle = color;
      context.lineWidth = line;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  /** One and two standard deviations of a Gaussian on the plane. */
  #ellipse(context, { mean, covariance: [uu, uv, vv] }) {
    const [x, y] = this.view.toPixels(...mean);
    const middle = (uu + vv) / 2;
    const half = Math.hypot((uu - vv) / 2, uv);
    const [long, short] = [middle + half, Math.max(middle - half, 0)].map((value) => Math.sqrt(value) * this.view.scale);
    const turn = -Math.atan2(2 * uv, uu - vv) / 2;
    context.strokeStyle = context.fillStyle = this.accent;
    context.lineWidth = 2;
    for (const [deviations, alpha] of [[2, 0.14], [1, 0.3]]) {
      context.beginPath();
      context.ellipse(x, y, Math.max(long * deviations, 3), Math.max(short * deviations, 3), turn, 0, 2 * Math.PI);
      context.globalAlpha = alpha;
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
  }
}
