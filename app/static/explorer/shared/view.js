/** The visible part of the plane: its center, and the pixels per unit of the latent space. */

const MAX_ZOOM = 64;

export class View {
  constructor() {
    [this.x, this.y, this.span] = [0, 0, 8]; // `span`: units of the plane along the shorter side
    this.home = { x: 0, y: 0, span: 8 };
    [this.width, this.height] = [1, 1];
  }

  /** Pixels per unit of the latent space. */
  get scale() {
    return Math.min(this.width, this.height) / this.span;
  }

  resize(width, height) {
    Object.assign(this, { width, height });
  }

  /** Set the home view to hold 99.6 % of the points, a flat array of pairs, and go there. */
  fit(pairs) {
    const across = Float32Array.from({ length: pairs.length / 2 }, (_, i) => pairs[2 * i]).sort();
    const up = Float32Array.from({ length: pairs.length / 2 }, (_, i) => pairs[2 * i + 1]).sort();
    const [low, high] = [Math.floor(0.002 * across.length), Math.ceil(0.998 * across.length) - 1];
    const size = Math.max(across[high] - across[low], up[high] - up[low]);
    this.home = { x: (across[low] + across[high]) / 2, y: (up[low] + up[high]) / 2, span: size * 1.08 || 1 };
    this.reset();
  }

  reset() {
    Object.assign(this, this.home);
  }

  /** From pixels to the plane; `toPixels` is the inverse. */
  toPlane(left, top) {
    return [this.x + (left - this.width / 2) / this.scale, this.y - (top - this.height / 2) / this.scale];
  }

  toPixels(u, v) {
    return [this.width / 2 + (u - this.x) * this.scale, this.height / 2 - (v - this.y) * this.scale];
  }

  pan(right, down) {
    this.x -= right / this.scale;
    this.y += down / this.scale;
    this.#keepNear();
  }

  /** Zoom by a factor around a pixel, which stays in its place; returns whether anything changed. */
  zoom(factor, left = this.width / 2, top = this.height / 2) {
    const span = Math.min(Math.max(this.span / factor, this.home.span / MAX_ZOOM), this.home.span * 3);
    if (span === this.span) return false;
    const [u, v] = this.toPlane(left, top);
    this.span = span;
    const [after, above] = this.toPlane(left, top);
    this.x += u - after;
    this.y += v - above;
    this.#keepNear();
    return true;
  }

  get isHome() {
    return this.x === this.home.x && this.y === this.home.y && this.span === this.home.span;
  }

  /** The view as text, for the page's address. */
  toString() {
    return [this.x, this.y, this.span].map((value) => +value.toFixed(3)).join(",");
  }

  parse(text) {
    const [x, y, span] = (text ?? "").split(",").map(Number);
    if (span > 0 && Number.isFinite(x) && Number.isFinite(y)) Object.assign(this, { x, y, span });
  }

  #keepNear() {
    const limit = this.home.span * 1.5;
    this.x = Math.min(Math.max(this.x, this.home.x - limit), this.home.x + limit);
    this.y = Math.min(Math.max(this.y, this.home.y - limit), this.home.y + limit);
  }
}
