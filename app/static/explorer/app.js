/** `app`: the object that all panels share.
 *
 * - `app.models`: GET /models; `app.model`: the chosen model, `{name, version, manifest, d, width, height, order,
 *   labels, nameOf, paper, isColor, isDigits, noun}`: `d` is the latent size, `order` the latent dimensions by falling KL,
 *   `labels` the number of classes or 0, `nameOf(label)` the name of a class or else its number, `paper` the background
 *   color of its images, `noun` the word for them, "digits" or "images".
 * - `app.choose(name, version)`; `app.onModel(listener)`: calls `listener(model)` now and after every choice.
 *   A choice removes the values of the model before (dims, z, view, points, label) from the state, without a call of its
 *   listeners.
 * - `app.state`: the query of the page's address; see page/state.js. Names: model, version, dims, z, view; seed, n, temperature, truncation,
 *   source, label; points, method; theme.
 * - `app.ask(path, {query, body, element, signal})` -> JSON.
 * - `app.image(path, {query, body, element, signal})` -> {blob, bitmap}.
 *   Both add the model and version (unless `query.model` names another), send the key, and throw an Error whose message
 *   can be shown. With an `element`, both put a "code" button into it: it needs `position: relative` or the class "figure".
 * - `app.addCode(element, {path, query, body, file})`: that button alone.
 * - `app.latest(work)`: see page/latest.js; errors go to `app.tell`.
 * - `app.tell(errorOrText)`: shows a message for eight seconds; screen readers read it when they are idle.
 * - `app.addPoint(latent, label, to)`, `to` is "map" (the default) or "morph"; `app.onPoint(listener)`:
 *   `listener(latent, label, to)`. The map pins points for "map"; the morph adds points for "morph".
 * - `app.addPosterior(mean, logStd)` and `app.onPosterior(listener)`: the map shows it as an ellipse; null removes it.
 */

import { makeCode } from "./page/code.js";
import { makeSend } from "./page/http.js";
import { makeKey } from "./page/key.js";
import { latest } from "./page/latest.js";
import { mountLinks } from "./page/links.js";
import { makeRecovery } from "./page/recovery.js";

const find = (id) => document.getElementById(id);

/** An event: `call(...)` calls every function that `listen(...)` was given. */
function makeEvent() {
  const listeners = new Set();
  return {
    call: (...values) => listeners.forEach((listener) => listener(...values)),
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** A model of GET /models with the values that the panels need. */
function describe({ name, version, manifest }) {
  const d = manifest.latent.shape.reduce((product, size) => product * size, 1);
  const spread = manifest.metrics.kl_per_dimension ?? manifest.metrics.variance_per_dimension ?? [];
  const order = Array.from({ length: d }, (_, i) => i).sort((a, b) => (spread[b] ?? 0) - (spread[a] ?? 0) || a - b);
  const { width, height, mode, background: paper } = manifest.image;
  const isDigits = manifest.training.dataset === "mnist";
  const appearance = { width, height, paper, isColor: mode === "RGB", isDigits, noun: isDigits ? "digits" : "images" };
  const nameOf = (label) => manifest.classes[label] ?? String(label);
  return { name, version, manifest, d, order, labels: manifest.arrays.label_means?.shape[0] ?? 0, nameOf, ...appearance };
}

/** The model to begin with: the address's, else a VAE of two dimensions, whose map shows everything, else the default. */
function initialModel(models, state) {
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

const fileName = (path, query) => (path.endsWith("/image") ? `image.${query?.format ?? "png"}` : undefined);

/** Make `app` with the state of the page's address; resolves when the models are known. */
export async function makeApp(state) {
  const key = makeKey(find("key"));
  const send = makeSend(key, makeRecovery(find("away"), find("away-text")));
  const addCode = makeCode(find("code"), key);
  const [chosen, points, posteriors] = [makeEvent(), makeEvent(), makeEvent()];
  const messages = find("messages");
  let timer = 0;

  const app = { state, addCode, models: null, model: null };

  app.tell = (error) => {
    if (error?.name === "AbortError") return;
    messages.textContent = error instanceof Error ? error.message : String(error);
    clearTimeout(timer);
    timer = setTimeout(() => (messages.textContent = ""), 8000);
  };

  mountLinks(key, send, app.tell);

  app.latest = (work) => latest(work, app.tell);

  async function request(path, { query = {}, body, element, signal } = {}) {
    const model = query.model ? {} : { model: app.model.name, version: app.model.version };
    const full = { path, query: { ...model, ...query }, body, file: fileName(path, query) };
    if (element) addCode(element, full);
    return send({ ...full, signal });
  }

  app.ask = async (path, options) => (await request(path, options)).json();

  app.image = async (path, options) => {
    const blob = await (await request(path, options)).blob();
    return { blob, bitmap: await createImageBitmap(blob) };
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
  app.model = describe(initialModel(app.models.models, state));
  app.onModel(({ paper }) => document.documentElement.style.setProperty("--behind", paper));
  return app;
}
