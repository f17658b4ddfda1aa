/** A card for each served model, with its measured figures. */

import { element, figure } from "../shared/dom.js";

const LIKELIHOODS = { bernoulli: "Bernoulli", gaussian: "Gaussian", discretized_logistic: "discretized logistic" };

/** Rows of a manifest: name, value and meaning. */
function rows({ latent, likelihood, metrics, training, graphs }) {
  const { nll, nll_standard_error: error, k, negative_elbo: bound, kl, active_units: active, mean_squared_error: squared } = metrics;
  const size = latent.shape.map((length) => length ?? "any").join(" × ");
  return [
    [k ? `NLL, k = ${k}` : "NLL", nll && `${figure(nll)}${error ? ` ± ${figure(error)}` : ""} nats`, `the IWAE bound of ${k} draws, lower is better`],
    ["−ELBO", bound && `${figure(bound)} nats`, "lower is better"],
    ["KL", kl && `${figure(kl)} nats`, "information of a latent about its image"],
    ["Active units", active !== undefined && `${active} of ${size}`, "latent dimensions that are used"],
    ["Squared error", nll === undefined && squared !== undefined && figure(squared, 4), "of a pixel of the reconstruction"],
    ["Latent size", size, graphs.encoder.outputs.log_std ? "" : "no posterior: a plain autoencoder"],
    ["Likelihood", LIKELIHOODS[likelihood] ?? likelihood, ""],
    ["Binarization", metrics.binarization ?? training?.binarization, "of the images it was measured on"],
  ].filter(([, value]) => value);
}

function card(app, { name, version, default: isDefault, manifest }) {
  const title = element("h3", {}, name, element("span", { className: "hushed" }, ` ${version}`));
  const list = element(
    "dl",
    { className: "figures" },
    ...rows(manifest).flatMap(([term, value, meaning]) => [element("dt", { title: meaning || "" }, term), element("dd", { title: meaning || "" }, value)]),
  );
  const words = element("span");
  const look = element("button", { type: "button" }, words, element("span", { className: "unseen" }, ` (${name} ${version})`));
  look.onclick = () => {
    app.choose(name, version);
    document.getElementById("map").scrollIntoView();
  };
  const link = element("a", { href: `models/${encodeURIComponent(name)}?version=${version}` }, "JSON");
  link.dataset.answer = "";
  link.setAttribute("aria-label", `${name} ${version} as JSON`);
  const made = element("article", { className: "card figure" }, title, element("p", {}, manifest.description), list, element("div", { className: "controls" }, look, link));
  if (isDefault) title.append(element("span", { className: "badge" }, "default"));
  app.addCode(made, { path: `models/${name}`, query: { version } });
  return { name, version, made, look, words };
}

export function mount(root, app) {
  const cards = app.models.models.map((model) => card(app, model));
  root.append(element("div", { className: "cards" }, ...cards.map(({ made }) => made)));
  app.onModel(({ name, version }) => {
    for (const { name: other, version: its, made, look, words } of cards) {
      const isChosen = other === name && its === version;
      made.classList.toggle("chosen", isChosen);
      look.disabled = isChosen;
      words.textContent = isChosen ? "You are looking at it" : "Look at it";
    }
  });
}
