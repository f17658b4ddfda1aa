/** The drawing: its posterior, its reconstruction, its score, and the score of each pixel. */

import { button, fileButton, onModelWhenNear } from "../shared/controls.js";
import { element, figure } from "../shared/dom.js";
import { makeHeatMap } from "./heat-map.js";
import { preprocess, base64Of } from "./strokes.js";
import { Pad } from "./pad.js";
import { address, bitmapOf, middleOf } from "../shared/images.js";
import { Scatter } from "../shared/scatter.js";

const SCORE = { k: 16, seed: 1 };
const EXAMPLES = { n: 6, seed: 11, temperature: 0.7 };
const NATS = [["log-likelihood", "log_likelihood"], ["ELBO", "elbo"], ["reconstruction", "reconstruction"], ["KL", "kl"]];

const EMPTY = "Draw something, or start from one of these.";
const NO_POSTERIOR = "This model is a plain autoencoder: it has no likelihood, and cannot say how likely an image is.";

/** A sentence about a score's percentile among held-out images; `noun` is the plural word for them. */
function describePercentile(percentile, noun) {
  if (percentile === undefined) return `There is no percentile: this model was not measured on real ${noun}.`;
  const share = 100 - percentile;
  if (share >= 99.95) return `Less likely under the model than all real ${noun} it was measured on.`;
  if (share < 0.5) return `More likely under the model than nearly all real ${noun}.`;
  return `Less likely under the model than ${share > 99 ? share.toFixed(1) : share.toFixed(0)} % of real ${noun}.`;
}

class Drawing {
  constructor(root, app) {
    this.app = app;
    this.pad = new Pad(() => this.#changed(), (words) => app.tell(words));
    this.latent = null;
    this.update = app.latest((model) => this.#update(model));
    this.#build(root);
    app.onModel((model) => this.#fitControls(model));
    onModelWhenNear(root, app, (model) => {
      this.#showExamples(model).catch(app.tell);
      this.#scatter(model).catch(app.tell);
    });
  }

  /** Show the controls for a model's images: colors, or centering for digits. */
  #fitControls(model) {
    this.center.hidden = !model.isDigits;
    this.color.hidden = !model.isColor;
    this.ink.value = model.paper === "#000000" ? "#ffffff" : "#f4b400";
    this.pad.ink = this.ink.value;
    this.pad.fit(model);
  }

  #build(root) {
    const { pad, app } = this;
    this.ink = element("input", { type: "color", onchange: () => (pad.ink = this.ink.value) });
    this.color = element("label", { className: "choice" }, "Color", this.ink);
    const open = fileButton("Open an image", async (file) => pad.clear(await middleOf(file)), app.tell);
    this.centerd = element("input", { type: "checkbox", checked: true, onchange: () => this.#changed() });
    this.undo = button("Undo", () => pad.undo());
    this.clear = button("Clear", () => pad.clear());
    this.morph = button("Add to morph", () => (app.addPoint(this.latent, "drawn", "morph"), app.tell("Added to the morph.")));
    this.center = element("label", { className: "choice" }, this.centerd, "Center like MNIST");
    const controls = element("div", { className: "controls" }, this.undo, this.clear, this.morph, this.color, ...open, this.center);
    this.examples = element("div", { className: "examples", attributes: { role: "group", "aria-label": "Images to start from" } });
    const left = element("div", { className: "draw-left" }, pad.root, controls, this.examples);

    this.reconstruction = element("img", { className: "digit", width: 28, height: 28, alt: "", hidden: true });
    this.heat = makeHeatMap();
    this.scatter = new Scatter("Where the drawing lies among real images");
    const figures = [
      ["Reconstruction", (this.reconstructionFigure = element("div", { className: "figure place" }, this.reconstruction))],
      ["Unlikely pixels", (this.heatFigure = element("div", { className: "figure" }, this.heat.root))],
      ["Posterior", this.scatter.root],
    ].map(([title, body]) => element("figure", { className: "shown" }, element("figcaption", {}, title), body));
    this.verdict = element("p", { className: "verdict", attributes: { "aria-live": "polite" } }, EMPTY);
    this.numbers = element("dl", { className: "readout nats" });
    const right = element("div", { className: "draw-right" }, this.verdict, element("div", { className: "shown-row" }, ...figures), this.numbers);
    root.append(element("div", { className: "draw" }, left, right));
    this.#empty();
  }

  /** Show samples of the model to start a drawing from. */
  async #showExamples(model) {
    const source = model.manifest.arrays.aggregate_weights ? "aggregate" : "prior";
    const { images } = await this.app.ask("sample", { query: { ...EXAMPLES, source } });
    const made = images.map((image, i) => {
      const img = element("img", { className: "digit", src: address(image), width: model.width, height: model.height, alt: "" });
      const start = async () => this.pad.clear(await bitmapOf(image));
      const one = element("button", { type: "button", className: "tile", onclick: () => start().catch(this.app.tell) }, img);
      one.setAttribute("aria-label", `Start from example ${i + 1}`);
      return one;
    });
    if (model === this.app.model) this.examples.replaceChildren(...made);
  }

  async #scatter(model) {
    this.dims = model.d > 2 ? model.order.slice(0, 2) : [0, 1];
    const { mean, labels } = await this.app.ask("posteriors", { query: { dims: this.dims }, element: this.scatter.root });
    if (model === this.app.model) this.scatter.set(mean, labels);
  }

  #changed() {
    if (!this.numbers) return;
    const { isEmpty } = this.pad;
    this.undo.disabled = this.clear.disabled = isEmpty;
    if (isEmpty) this.#empty();
    this.update(this.app.model);
  }

  #empty() {
    this.latent = null;
    this.reconstruction.hidden = true;
    this.heat.clear();
    this.scatter.mark({ ellipses: [] });
    this.app.addPosterior(null, null);
    this.morph.disabled = this.undo.disabled = this.clear.disabled = true;
    this.#showScore(EMPTY, null);
  }

  /** Encode, reconstruct and score the drawing, one request after the other. */
  async #update(model) {
    const { pad, app } = this;
    if (pad.isEmpty) return;
    const digit = preprocess(pad, model, model.isDigits && this.centerd.checked);
    const body = { images: [base64Of(digit)] };
    const isStale = () => pad.isEmpty || model !== app.model;
    const posterior = await app.ask("encode", { body, element: this.scatter.root });
    if (isStale()) return;
    this.#place(posterior.mean[0], posterior.log_std?.[0]);
    const { images } = await app.ask("reconstruct", { body, element: this.reconstructionFigure });
    if (isStale()) return;
    Object.assign(this.reconstruction, { src: address(images[0]), hidden: false, alt: "The model's reconstruction of the drawing" });
    if (posterior.log_std) await this.#score(digit, body, isStale);
    else (this.heat.clear(), this.#showScore(NO_POSTERIOR, null));
  }

  /** Show a posterior on the map and on the scatter; the map pins its mean when the pen is lifted. */
  #place(mean, logStd) {
    this.latent = mean;
    this.morph.disabled = false;
    this.app.addPosterior(mean, logStd ?? null);
    if (this.pad.pointer === null) this.app.addPoint(mean, "drawn");
    if (!this.dims) return;
    const std = this.dims.map((i) => (logStd ? Math.exp(logStd[i]) : 0));
    this.scatter.mark({ ellipses: [{ mean: this.dims.map((i) => mean[i]), std }] });
  }

  async #score(digit, body, isStale) {
    let score;
    try {
      score = await this.app.ask("score", { query: { ...SCORE, explain: true }, body, element: this.heatFigure });
    } catch (error) {
      if (error.status !== 422) throw error;
      this.heat.clear();
      return this.#showScore(`There is no score. ${error.message}.`, null);
    }
    const explanation = await bitmapOf(score.explanation[0]);
    if (isStale()) return undefined;
    this.heat.show(digit, explanation, score.explanation_nats[0]);
    return this.#showScore(describePercentile(score.score_percentile?.[0], this.app.model.noun), score);
  }

  #showScore(text, score) {
    if (this.verdict.textContent !== text) this.verdict.textContent = text;
    const rows = NATS.flatMap(([name, member]) => {
      const value = element("dd", {}, score ? `${figure(score[member][0])} nats` : "–");
      value.dataset.member = member;
      return [element("dt", {}, name), value];
    });
    this.numbers.replaceChildren(...rows);
  }
}

export function mount(root, app) {
  return new Drawing(root, app);
}
