/** The map: posterior means of held-out images on a plane of the latent space; the latent at the pointer is decoded. */

import { Backdrop } from "./backdrop.js";
import { Chart } from "./chart.js";
import { figure } from "../shared/dom.js";
import { Dots } from "../shared/dots.js";
import { listen } from "./gestures.js";
import { makeLegend } from "./legend.js";
import { Lens, paint } from "./lens.js";
import { Means } from "./means.js";
import { buildMap } from "./page.js";
import { makePinned } from "./pinned.js";
import { makePlaneChoice } from "./plane-choice.js";
import { makeSliders } from "./sliders.js";
import { View } from "../shared/view.js";

const STEP = 12; // pixels per arrow key
const FAST_STEP = 60; // with Shift

const rounded = (latent) => latent.map((value) => +value.toFixed(4));

class LatentMap {
  constructor(root, app) {
    this.app = app;
    this.view = new View();
    this.dots = new Dots();
    this.lens = new Lens();
    this.page = buildMap(root, this.lens.root);
    this.backdrop = new Backdrop(app, () => this.chart.redraw());
    const { view, dots, backdrop } = this;
    this.chart = new Chart({ view, dots, backdrop, marks: () => this.#marks() });
    this.page.stage.prepend(this.chart.base, this.chart.middle, this.chart.over);
    this.chart.over.setAttribute("aria-label", "Map of the latent space. Arrows move, Enter pins, plus and minus zoom, 0 shows all.");
    this.legend = makeLegend(this.page.legend, (label) => this.#show(label));
    this.sliders = makeSliders(this.page.sliders, (dim, value) => this.pin(this.z.with(dim, value)));
    this.choice = makePlaneChoice(this.page.planes, (dims) => app.state.set({ dims }));
    this.pinned = makePinned(this.page, app);
    this.means = new Means(app);
    [this.cursor, this.posterior, this.plane] = [null, null, null];
    this.decode = app.latest((latent, since) => this.#decode(latent, since));
    this.load = app.latest((model) => this.#load(model));
    this.#listen();
  }

  /** The pinned latent: that of the page's address, or the origin. */
  get z() {
    const given = (this.app.state.get("z") ?? "").split(",").map(Number);
    const { d } = this.model;
    return given.length === d && given.every(Number.isFinite) ? given : Array(d).fill(0);
  }

  get dims() {
    const { d, order } = this.model;
    const given = this.app.state.get("dims");
    if (d <= 2) return "0,1";
    const pair = (given ?? "").split(",").map(Number);
    const isPair = pair.length === 2 && pair[0] !== pair[1] && pair.every((dim) => Number.isInteger(dim) && dim >= 0 && dim < d);
    return given === "axes" || isPair ? given : order.slice(0, 2).join(",");
  }

  pin(latent) {
    this.app.state.set({ z: rounded(latent).join(",") });
  }

  #pinAt([u, v]) {
    if (this.plane) this.pin(this.#latentAt(u, v));
  }

  #listen() {
    const { app, chart, view, page } = this;
    const moved = () => this.#moved();
    listen(chart.over, {
      hover: (x, y) => this.#hover(x, y),
      leave: () => this.#leave(),
      pin: (x, y) => this.#pinAt(view.toPlane(x, y)),
      pan: (dx, dy) => (view.pan(dx, dy), moved()),
      zoom: (factor, x, y) => view.zoom(factor, x, y) && (moved(), true),
      step: (dx, dy, isFast) => this.#step(dx * (isFast ? FAST_STEP : STEP), dy * (isFast ? FAST_STEP : STEP)),
      confirm: () => this.cursor && this.#pinAt(this.cursor),
      reset: () => (view.reset(), moved()),
    });
    chart.over.addEventListener("blur", () => this.#leave());
    page.closer.onclick = () => (view.zoom(1.4), moved());
    page.farther.onclick = () => (view.zoom(1 / 1.4), moved());
    page.home.onclick = () => (view.reset(), moved());
    page.nearest.onclick = () => this.#toNearest().catch(app.tell);
    page.morph.onclick = () => (app.addPoint(this.z, null, "morph"), app.tell("Added to the morph."));
    for (const input of page.layers) input.onchange = () => this.#layers();
    new ResizeObserver(() => (chart.measure(page.stage), this.#refreshBackdrop())).observe(page.stage);
    document.addEventListener("themechange", () => (chart.repaint(), this.#refreshBackdrop()));
    app.state.onChange(["z"], () => this.#pinMoved());
    app.state.onChange(["dims"], () => (this.#fill(), this.load(this.model)));
    app.onPoint((latent, _, to) => to === "map" && this.pin(latent));
    app.onPosterior((mean, logStd) => {
      this.posterior = mean && { mean, std: (logStd ?? mean.map(() => -Infinity)).map(Math.exp) };
      chart.redraw(false);
    });
    app.onModel((model) => {
      this.model = model;
      [this.cursor, this.posterior, this.plane] = [null, null, null];
      this.backdrop.clear();
      this.#fill();
      this.load(model);
    });
  }

  /** Read the posterior means on the chosen plane and show them. */
  async #load(model) {
    const dims = this.dims;
    const { plane, pairs, labels } = await this.means.on(model, dims, this.page.stage);
    if (model !== this.app.model || dims !== this.dims) return;
    const isOther = this.plane !== null;
    this.plane = plane;
    this.dots.set(Float32Array.from(pairs), labels);
    this.view.fit(this.dots.pairs);
    if (isOther) this.app.state.set({ view: null });
    else this.view.parse(this.app.state.get("view"));
    [this.page.across.textContent, this.page.up.textContent] = plane.names.map((name) => `${name} →`);
    if (labels) this.chart.classes = Math.max(model.labels, Math.max(...labels) + 1);
    this.chart.measure(this.page.stage);
    if (model.d === 2 && !this.app.state.get("z") && pairs.length) this.app.state.set({ z: rounded(pairs.slice(0, 2)).join(",") }, true);
    this.#pinMoved();
    this.#refreshBackdrop();
  }

  /** Fill the controls before anything is read, so that nothing moves afterwards. */
  #fill() {
    const { model, page, dims } = this;
    this.chart.classes = model.labels;
    this.chart.shown = null;
    this.legend.set(model);
    this.choice.set(model, dims);
    const others = dims === "axes" ? model.order : model.order.filter((dim) => !dims.split(",").includes(String(dim)));
    this.sliders.set(model.d > 2 ? others : [], this.z, model.manifest.metrics.kl_per_dimension);
    page.others.hidden = model.d <= 2;
  }

  #latentAt(u, v) {
    return rounded(this.plane.put(this.z, [u, v]));
  }

  #moved() {
    const { view, app } = this;
    app.state.set({ view: view.isHome ? null : view.toString() });
    this.chart.redraw();
    this.#refreshBackdrop();
  }

  #pinMoved() {
    if (!this.plane || this.model !== this.app.model) return;
    const z = this.z;
    this.sliders.show(z);
    this.pinned.show(z, this.#describe(z));
    this.chart.redraw(false);
    if (this.model.d > 2) this.#refreshBackdrop();
  }

  #hover(x, y) {
    if (!this.plane) return;
    this.#look(this.view.toPlane(x, y));
    this.lens.move(x, y, this.view.width);
  }

  /** Move the cursor by pixels, from the pin at first; the view follows it. */
  #step(dx, dy) {
    if (!this.plane) return;
    const { view } = this;
    const [x, y] = view.toPixels(...(this.cursor ?? this.plane.project(this.z)));
    const [left, top] = [x + dx, y + dy];
    const into = (value, size) => Math.min(Math.max(value, 0), size) - value;
    const [right, down] = [into(left, view.width), into(top, view.height)];
    if (right || down) (view.pan(right, down), this.#moved());
    const point = view.toPlane(left + right, top + down);
    this.#look(point);
    this.lens.move(left + right, top + down, view.width);
    this.pinned.say(this.#describe(this.#latentAt(...point)));
  }

  #look([u, v]) {
    const latent = this.#latentAt(u, v);
    this.cursor = [u, v];
    const label = this.#classAt(u, v);
    this.lens.caption.textContent = [figure(u), figure(v), label === null ? "" : `near ${this.app.model.nameOf(label)}`].filter(Boolean).join("  ");
    this.chart.redraw(false);
    this.decode(latent, performance.now());
  }

  async #decode(latent, since) {
    const { model } = this;
    const { bitmap } = await this.app.image("decode/image", { query: { latent } });
    if (model !== this.model) return bitmap.close();
    paint(this.lens.canvas, bitmap);
    const detail = { latent, milliseconds: performance.now() - since };
    return this.chart.over.dispatchEvent(new CustomEvent("decoded", { bubbles: true, detail }));
  }

  #leave() {
    this.lens.hide();
    this.cursor = null;
    this.chart.redraw(false);
  }

  #show(label) {
    this.chart.shown = label;
    this.chart.redraw();
  }

  #classAt(u, v) {
    const nearest = this.dots.labels ? this.dots.nearest(u, v) : -1;
    return nearest < 0 ? null : this.dots.labels[nearest];
  }

  #describe(latent) {
    const [u, v] = this.plane.project(latent);
    const label = this.#classAt(u, v);
    return { names: this.plane.names, values: [u, v].map((value) => figure(value)), label };
  }

  /** Pin the posterior mean, in all dimensions, whose dot is nearest to the pin. */
  async #toNearest() {
    const index = this.dots.nearest(...this.plane.project(this.z));
    const { mean } = await this.means.all(this.model);
    if (index >= 0) this.pin(mean[index]);
  }

  #layers() {
    const chosen = this.page.layers.find(({ checked }) => checked).value;
    this.chart.hasDots = chosen !== "images";
    if (chosen === "dots") this.backdrop.clear();
    this.chart.redraw();
    this.#refreshBackdrop();
  }

  #refreshBackdrop() {
    const isWanted = this.page.layers.find(({ checked }) => checked).value !== "dots";
    if (isWanted && this.plane) this.backdrop.refresh(this.view, (u, v) => this.#latentAt(u, v));
  }

  #marks() {
    if (!this.plane) return { pin: [1e6, 1e6], cursor: null, ellipses: [] };
    const { plane, cursor, posterior } = this;
    const isSame = posterior?.mean.length === this.model.d;
    const ellipses = isSame ? [{ mean: plane.project(posterior.mean), covariance: plane.covariance(posterior.std) }] : [];
    return { pin: plane.project(this.z), cursor, ellipses };
  }
}

export function mount(root, app) {
  return new LatentMap(root, app);
}
