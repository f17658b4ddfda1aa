/** `app`: what the panels share.
 *
 * - `app.models`: GET /models; `app.model`: the chosen one, `{name, version, manifest, d, width, height, order, labels,
 *   nameOf, paper, isColour, isDigits, many}`: `d` is the latent size, `order` the latent dimensions by KL, the largest
 *   first, `labels` the number of classes or 0, `nameOf(label)` what one is called, its number for want of a name, `paper`
 *   the colour behind its pictures, `many` what these are called.
 * - `app.choose(name, version)`; `app.onModel(listener)`: `listener(model)` now and after every choice, which takes what
 *   belongs to a model (dims, z, view, points, label) out of the state without a call of its listeners.
 * - `app.state`: the address; see state.js. Names: model, version, dims, z, view; seed, n, temperature, truncation,
 *   source, label; points, method; theme.
 * - `app.ask(path, {query, body, element, signal})` -> JSON.
 * - `app.picture(path, {query, body, element, signal})` -> {url, width, height, blob, bitmap}; `url` is a blob:, made
 *   when it is read first: let go of it with URL.revokeObjectURL, or let `app.place(img, picture)` do so.
 *   Both add model and version (unless `query.model` names another), send the key, and throw an Error in words. With an
 *   `element` both put a "code" button into it: give it `position: relative`, or the class "figure".
 * - `app.shown(element, {path, query, body, file})`: that button alone.
 * - `app.latest(work)`: see latest.js; errors are told.
 * - `app.tell(errorOrText)`: a message, politely.
 * - `app.addPoint(latent, label, to)`, `to` is "map" (the default) or "morph"; `app.onPoint(listener)`:
 *   `listener(latent, label, to)`. The map shows points that are for it; the morph takes those that are for it.
 * - `app.addPosterior(mean, logStd)` and `app.onPosterior(listener)`: the map shows it as an ellipse; null takes it away.
 */

import { makeShown } from "./page/code.js";
import { makeSend } from "./page/http.js";
import { makeKey } from "./page/key.js";
import { latest } from "./page/latest.js";
import { mountLinks } from "./page/links.js";
import { makeRecovery } from "./page/recovery.js";

const find = (id) => document.getElementById(id);

/** What calls and who listens, in one. */
function makeEvent() {
  const listeners = new Set();
  return {
    call: (...given) => listeners.forEach((listener) => listener(...given)),
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** A served model as the panels want it. */
function describe({ name, version, manifest }) {
  const d = manifest.latent.shape.reduce((product, size) => product * size, 1);
  const spread = manifest.metrics.kl_per_dimension ?? manifest.metrics.variance_per_dimension ?? [];
  const order = Array.from({ length: d }, (_, i) => i).sort((a, b) => (spread[b] ?? 0) - (spread[a] ?? 0) || a - b);
  const { width, height, mode, background: paper } = manifest.image;
  const isDigits = manifest.training.dataset === "mnist";
  const look = { width, height, paper, isColour: mode === "RGB", isDigits, many: isDigits ? "digits" : "pictures" };
  const nameOf = (label) => manifest.classes[label] ?? String(label);
  return { name, version, manifest, d, order, labels: manifest.arrays.label_means?.shape[0] ?? 0, nameOf, ...look };
}

/** The one that the address names, else one of two dimensions, whose map is all of it, else the default. */
function first(models, state) {
  const wanted = state.get("model");
  const named = models.filter(({ name }) => name === wanted);
  const version = Number(state.get("version"));
  const plane = models.filter(({ manifest }) => manifest.latent.shape.join() === "2" && "log_std" in manifest.graphs.encoder.outputs);
  return (
    named.find((model) => model.version === version) ??
    named.at(-1) ??
    plane.at(-1) ??
    models.find((model) => model.default) ??
    models[0]
  );
}

const extension = (path, query) => (path.endsWith("/image") ? `picture.${query?.format ?? "png"}` : undefined);

/** Make `app` on the address's state; resolves when the models are known. */
export async function makeApp(state) {
  const key = makeKey(find("key"));
  const send = makeSend(key, makeRecovery(find("away"), find("away-text")));
  const shown = makeShown(find("code"), key);
  const [chosen, points, posteriors] = [makeEvent(), makeEvent(), makeEvent()];
  const messages = find("messages");
  let silence = 0;

  const app = { state, shown, models: null, model: null };

  app.tell = (error) => {
    if (error?.name === "AbortError") return;
    messages.textContent = error instanceof Error ? error.message : String(error);
    clearTimeout(silence);
    silence = setTimeout(() => (messages.textContent = ""), 8000);
  };

  mountLinks(key, send, app.tell);

  app.latest = (work) => latest(work, app.tell);

  async function request(path, { query = {}, body, element, signal } = {}) {
    const model = query.model ? {} : { model: app.model.name, version: app.model.version };
    const full = { path, query: { ...model, ...query }, body, file: extension(path, query) };
    if (element) shown(element, full);
    return send({ ...full, signal });
  }

  app.ask = async (path, options) => (await request(path, options)).json();

  app.picture = async (path, options) => {
    const blob = await (await request(path, options)).blob();
    const bitmap = await createImageBitmap(blob);
    let url = null;
    return {
      get url() {
        return (url ??= URL.createObjectURL(blob));
      },
      width: bitmap.width,
      height: bitmap.height,
      blob,
      bitmap,
    };
  };

  app.place = (img, { url, width, height }) => {
    const before = img.src;
    Object.assign(img, { src: url, width, height });
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  };

  app.choose = (name, version) => {
    const served = app.models.models.find((model) => model.name === name && model.version === version);
    app.model = describe(served);
    state.set({ model: name, version, dims: null, z: null, view: null, points: null, label: null }, true);
    chosen.call(app.model);
  };

  app.onModel = (listener) => {
    listener(app.model);
    return chosen.listen(listener);
  };

  app.addPoint = (latent, label = null, to = "map") => points.call(latent, label, to);
  app.onPoint = points.listen;
  app.addPosterior = (mean, logStd) => posteriors.call(mean, logStd);
  app.onPosterior = posteriors.listen;

  app.models = await (await send({ path: "models" })).json();
  app.model = describe(first(app.models.models, state));
  app.onModel(({ paper }) => document.documentElement.style.setProperty("--behind", paper));
  return app;
}
