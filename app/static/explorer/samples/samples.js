/** Samples: of the prior, of the aggregated posterior, or both side by side. */

import { button, makeRange, makeSegments, onModelWhenNear } from "../shared/controls.js";
import { element } from "../shared/dom.js";
import { ImageGrid } from "../shared/image-grid.js";

const SOURCES = [["prior", "Prior"], ["aggregate", "Aggregated posterior"], ["both", "Both"]];
const COUNTS = [16, 36, 64];
const MAX_SEED = 2 ** 31 - 1;
const NO_TRUNCATION = 4; // the slider's maximum: no truncation

/** Values for what the page's address does not name. */
const DEFAULTS = { seed: 1, n: 36, temperature: 1, truncation: NO_TRUNCATION, source: "both", label: null };

const TITLES = { prior: "Prior", aggregate: "Aggregated posterior" };
const TEXTS = {
  prior: "Latents from N(0, I), the distribution that training pulled the posteriors towards.",
  aggregate: "Latents from where the posteriors of the training images really lie.",
};

class Samples {
  constructor(root, app) {
    this.app = app;
    this.drawn = {};
    this.grids = Object.fromEntries(Object.keys(TITLES).map((source) => [source, new ImageGrid(`Sample of the ${TITLES[source].toLowerCase()}`, (i) => this.#choose(source, i))]));
    this.draw = app.latest((model) => this.#draw(model));
    this.#build(root);
    onModelWhenNear(root, app, (model) => this.#refresh(model));
    app.state.onChange(Object.keys(DEFAULTS), () => this.#refresh(app.model));
  }

  /** The valid values of the address, and the defaults for the others. */
  get wanted() {
    const number = (name, low, high) => {
      const text = this.app.state.get(name);
      const value = Number(text);
      return text !== null && text !== "" && value >= low && value <= high ? value : DEFAULTS[name];
    };
    const { arrays } = this.app.model.manifest;
    const given = SOURCES.map(([name]) => name).find((name) => name === this.app.state.get("source"));
    const source = arrays.aggregate_weights ? (given ?? DEFAULTS.source) : "prior";
    const label = number("label", 0, this.app.model.labels - 1);
    return {
      seed: Math.floor(number("seed", 0, MAX_SEED)),
      n: Math.floor(number("n", 1, 64)),
      temperature: number("temperature", 0, 2),
      truncation: number("truncation", 0.1, NO_TRUNCATION),
      source,
      label: source === "prior" || !arrays.aggregate_labels || label === null ? null : Math.floor(label),
    };
  }

  /** Put a value into the address; a default is left out. */
  #set(name, value) {
    this.app.state.set({ [name]: value === DEFAULTS[name] ? null : value });
  }

  #build(root) {
    const say = { temperature: (value) => value.toFixed(2), truncation: (value) => (value >= NO_TRUNCATION ? "none" : value.toFixed(2)) };
    this.seed = element("input", { type: "number", min: 0, max: MAX_SEED, step: 1, className: "seed" });
    this.seed.onchange = () => this.seed.validity.valid && this.seed.value !== "" ? this.#set("seed", Number(this.seed.value)) : this.#fill();
    const another = button("Another seed", () => this.#set("seed", Math.floor(Math.random() * 100_000)), { className: "main" });
    this.source = makeSegments("source", "Where latents are drawn from", SOURCES, (value) => this.#set("source", value));
    this.label = element("select", { onchange: () => this.#set("label", this.label.value === "" ? null : Number(this.label.value)) });
    this.count = element("select", { onchange: () => this.#set("n", Number(this.count.value)) });
    this.temperature = makeRange("Temperature", { min: 0, max: 2, step: 0.05, say: say.temperature, onInput: (value) => this.#set("temperature", value) });
    this.truncation = makeRange("Truncation", { min: 0.1, max: NO_TRUNCATION, step: 0.1, say: say.truncation, onInput: (value) => this.#set("truncation", value) });
    const named = (words, control) => element("label", { className: "choice" }, element("span", {}, words), control);
    this.add = button("Add to morph", () => this.#addToMorph(), { disabled: true });
    this.chosen = element("p", { className: "small hushed", attributes: { "aria-live": "polite" } });
    this.figures = Object.entries(this.grids).map(([source, grid]) => {
      const caption = element("figcaption", {}, element("strong", {}, TITLES[source]), ` ${TEXTS[source]}`);
      return [source, element("figure", { className: "shown" }, grid.root, caption)];
    });
    root.append(
      element(
        "div",
        { className: "samples" },
        element("div", { className: "controls" }, this.source.root, named("Class", this.label), named("How many", this.count)),
        element("div", { className: "controls" }, named("Seed", this.seed), another, this.temperature.root, this.truncation.root),
        (this.row = element("div", { className: "grids" }, ...this.figures.map(([, shown]) => shown))),
        element("div", { className: "controls" }, this.add, this.chosen),
      ),
    );
  }

  /** Show the wanted values on the controls. */
  #fill() {
    const { wanted, app } = this;
    const { arrays } = app.model.manifest;
    this.seed.value = wanted.seed;
    this.source.value = wanted.source;
    for (const input of this.source.inputs) input.disabled = input.value !== "prior" && !arrays.aggregate_weights;
    const option = (value, text) => element("option", { value }, text);
    this.label.replaceChildren(option("", "all"), ...Array.from({ length: app.model.labels }, (_, i) => option(i, app.model.nameOf(i))));
    this.label.value = wanted.label ?? "";
    this.label.disabled = wanted.source === "prior" || !arrays.aggregate_labels;
    this.label.title = this.label.disabled ? "The prior has no classes: choose the aggregated posterior" : "";
    this.count.replaceChildren(...[...new Set([...COUNTS, wanted.n])].sort((a, b) => a - b).map((count) => option(count, String(count))));
    this.count.value = wanted.n;
    this.temperature.show(wanted.temperature);
    this.truncation.show(wanted.truncation);
    for (const [source, shown] of this.figures) shown.hidden = wanted.source !== "both" && wanted.source !== source;
    this.row.classList.toggle("two", wanted.source === "both");
    for (const grid of Object.values(this.grids)) grid.reserve(wanted.n, app.model);
    return wanted;
  }

  #refresh(model) {
    this.#fill();
    this.draw(model);
  }

  async #draw(model) {
    const { source: wantedSource, label, truncation, ...query } = this.wanted;
    this.#unchoose();
    for (const [source, grid] of Object.entries(this.grids)) {
      if (wantedSource !== "both" && wantedSource !== source) continue;
      const parts = { ...query, source, truncation: truncation < NO_TRUNCATION ? truncation : null, label: source === "aggregate" ? label : null };
      const drawn = await this.app.ask("sample", { query: parts, element: grid.root });
      if (model !== this.app.model) return;
      this.drawn[source] = drawn;
      grid.show(drawn.images, model);
    }
  }

  #unchoose() {
    this.latent = null;
    this.add.disabled = true;
    this.chosen.textContent = "Choose a sample to pin it on the map.";
    for (const grid of Object.values(this.grids)) grid.mark(null);
  }

  #choose(source, index) {
    for (const [name, grid] of Object.entries(this.grids)) grid.mark(name === source ? index : null);
    this.latent = this.drawn[source].latents[index];
    this.add.disabled = false;
    this.chosen.textContent = `Sample ${index + 1} of the ${TITLES[source].toLowerCase()} is on the map.`;
    this.app.addPoint(this.latent, "sample");
  }

  #addToMorph() {
    this.app.addPoint(this.latent, "sample", "morph");
    this.app.tell("Added to the morph.");
  }
}

export function mount(root, app) {
  return new Samples(root, app);
}
