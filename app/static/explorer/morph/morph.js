/** The morph: interpolation through several points by lerp and by slerp, as strips and as an animation to save. */

import { button, fileButton, makeRange, makeSegments, onModelWhenNear } from "../shared/controls.js";
import { element } from "../shared/dom.js";
import { Path } from "./path.js";
import { dataUrl, save } from "../shared/images.js";
import { makeList, MAX_POINTS, ofClass, ofLatent, read, toRequest, write } from "./points.js";

const STEPS = 16; // images from each point to the next, both included
const DURATION = 80; // milliseconds per frame, on the page and in the file

const METHODS = { lerp: ["Lerp", "straight through the space"], slerp: ["Slerp", "along the sphere around the origin"] };

class Morph {
  constructor(root, app) {
    Object.assign(this, { app, points: [], timer: 0, isShown: false });
    this.paths = Object.fromEntries(Object.entries(METHODS).map(([method, words]) => [method, new Path(...words)]));
    this.walk = app.latest((model, points) => this.#walk(model, points));
    this.#build(root);
    app.onModel((model) => this.#begin(model));
    onModelWhenNear(root, app, () => this.#changed());
    app.state.onChange(["method"], () => (this.method.value = this.wantedMethod));
    app.onPoint((latent, name, to) => to === "morph" && this.#add(ofLatent(latent, name)));
  }

  get wantedMethod() {
    const given = this.app.state.get("method");
    return given in METHODS ? given : "lerp";
  }

  #build(root) {
    this.list = makeList((points) => this.#take(points));
    this.classes = element("div", { className: "controls", attributes: { role: "group", "aria-label": "Add a class" } });
    const pin = button("The map’s point", () => this.#add(ofLatent(this.#pin(), "map")));
    const sample = button("A random sample", () => this.#sample().catch(this.app.tell));
    const upload = fileButton("An image file", (file) => this.#upload(file), this.app.tell);
    const clear = button("Remove all", () => this.#take([]));
    this.range = makeRange("Step", { min: 0, max: 1, step: 1, say: (index) => `${index + 1} / ${this.frames}`, onInput: (index) => this.#step(index) });
    this.play = button("Play", () => (this.timer ? this.#stop() : this.#start()), { className: "main play" });
    this.method = makeSegments("method", "Method of the saved animation", Object.entries(METHODS).map(([value, [text]]) => [value, text]), (method) => this.app.state.set({ method }));
    this.method.value = this.wantedMethod;
    this.format = makeSegments("format", "Format of the file", [["gif", "GIF"], ["webp", "WebP"]], () => {});
    this.save = button("Save animation", () => this.#save().catch(this.app.tell));
    this.hint = element("p", { className: "hushed small", attributes: { "aria-live": "polite" } });
    const { paths } = this;
    root.append(
      element(
        "div",
        { className: "morph" },
        element("div", { className: "adders" }, element("span", { className: "hushed small" }, "Add"), this.classes, pin, sample, ...upload, clear),
        this.list.root,
        this.hint,
        element("div", { className: "controls" }, this.play, this.range.root),
        element("div", { className: "ways" }, paths.lerp.root, paths.slerp.root),
        element("div", { className: "controls" }, this.method.root, this.format.root, this.save),
      ),
    );
  }

  get frames() {
    return Math.max(this.paths.lerp.frames, 1);
  }

  /** Take the points of the page's address, or two default points. */
  #begin(model) {
    const given = read(this.app.state.get("points"), model);
    const [first, last] = [Math.min(3, model.labels - 1), Math.min(8, model.labels - 1)];
    const axis = (value) => ofLatent(Array.from({ length: model.d }, (_, i) => (i === model.order[0] ? value : 0)), "point");
    this.points = given.length ? given : model.labels > 1 ? [ofClass(first, model), ofClass(last, model)] : [axis(-2), axis(2)];
    this.classes.replaceChildren(
      ...Array.from({ length: model.labels }, (_, label) => button(model.nameOf(label), () => this.#add(ofClass(label, model)), { className: "one", ariaLabel: `Add class ${label}` })),
    );
    this.#show();
  }

  #pin() {
    const { d } = this.app.model;
    const given = (this.app.state.get("z") ?? "").split(",").map(Number);
    return given.length === d && given.every(Number.isFinite) ? given : Array(d).fill(0);
  }

  async #sample() {
    const { latents } = await this.app.ask("sample", { query: { seed: Math.floor(Math.random() * 1e6) } });
    this.#add(ofLatent(latents[0], "sample"));
  }

  /** Add the posterior mean of an image file. */
  async #upload(file) {
    const body = { images: [await dataUrl(file)] };
    const { mean } = await this.app.ask("encode", { query: { fit: "crop" }, body });
    this.#add(ofLatent(mean[0], "image"));
  }

  #add(point) {
    if (this.points.length >= MAX_POINTS) this.app.tell(`A morph has at most ${MAX_POINTS} points.`);
    else this.#take([...this.points, point]);
  }

  #take(points) {
    this.points = points;
    this.app.state.set({ points: write(points) || null });
    this.#show();
    this.#changed();
  }

  #show() {
    this.list.show(this.points);
    const few = this.points.length < 2;
    this.hint.textContent = few ? "A morph needs two points: add some." : `${this.points.length} points. Arrows change their order.`;
    for (const control of [this.play, this.save, this.range.input]) control.disabled = few;
    if (few) this.#stop();
  }

  #changed() {
    this.walk(this.app.model, this.points);
  }

  async #walk(model, points) {
    const { lerp, slerp } = this.paths;
    if (!points.length) return (lerp.clear(), slerp.clear());
    const visited = points.length > 1 ? points : [points[0], points[0]]; // interpolation needs two points
    for (const [method, path] of Object.entries(this.paths)) {
      const body = { points: visited.map(toRequest), steps: STEPS, method };
      const { bitmap } = await this.app.image("interpolate/image", { body, element: path.stripFigure });
      if (model !== this.app.model || points !== this.points) return bitmap.close();
      path.set(bitmap, model);
    }
    points.forEach((_, i) => this.list.paint(i, lerp.bitmap, i * (STEPS - 1) * model.width, model));
    this.range.input.max = lerp.frames - 1;
    const isFirst = !this.isShown;
    this.isShown = true;
    return this.#step(isFirst ? STEPS / 2 - 1 : Math.min(Number(this.range.input.value), lerp.frames - 1));
  }

  #step(index) {
    this.range.show(index);
    for (const path of Object.values(this.paths)) path.step(index);
  }

  /** Play forward and backward until stopped. */
  #start() {
    let by = 1;
    this.play.textContent = "Stop";
    this.timer = setInterval(() => {
      const index = Number(this.range.input.value);
      if (index + by < 0 || index + by >= this.frames) by = -by;
      this.#step(Math.min(Math.max(index + by, 0), this.frames - 1));
    }, DURATION);
  }

  #stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = "Play";
  }

  async #save() {
    const [format, method] = [this.format.value, this.method.value];
    const body = { points: this.points.map(toRequest), steps: STEPS, method };
    const { blob, bitmap } = await this.app.image("interpolate/image", { query: { format, duration: DURATION }, body, element: this.paths[method].stripFigure });
    bitmap.close();
    save(blob, `${this.app.model.name}-${method}.${format}`);
    this.app.tell(`Saved as ${this.app.model.name}-${method}.${format}.`);
  }
}

export function mount(root, app) {
  return new Morph(root, app);
}
