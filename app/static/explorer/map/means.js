/** The posterior means of held-out images: on a plane, and in all dimensions. */

import { Plane, principalAxes } from "./plane.js";

export class Means {
  constructor(app) {
    Object.assign(this, { app, model: null, whole: null, axes: null });
  }

  /** `{mean, labels}` of a model in all dimensions; read once, because it may be megabytes. */
  all(model) {
    if (model !== this.model || !this.whole) {
      const whole = this.app.ask("posteriors", { query: { space: "latent" } });
      whole.catch(() => this.whole === whole && (this.whole = null));
      Object.assign(this, { model, whole, axes: null });
    }
    return this.whole;
  }

  /** `{plane, pairs, labels}` on the plane `dims`; `element` gets the request's code button. */
  async on(model, dims, element) {
    if (dims === "axes") {
      const { mean, labels } = await this.all(model);
      this.axes ??= principalAxes(mean);
      const plane = Plane.ofAxes(this.axes);
      return { plane, pairs: mean.flatMap((row) => plane.project(row)), labels };
    }
    const pair = dims.split(",").map(Number);
    const { mean, labels } = await this.app.ask("posteriors", { query: { dims: pair }, element });
    return { plane: Plane.ofDims(model.d, pair), pairs: mean.flat(), labels };
  }
}
