/** The DOM elements of the map's panel. */

import { element } from "../shared/dom.js";

const LAYERS = [["both", "Both"], ["dots", "Dots"], ["images", "Images"]];

const button = (text, properties = {}) => element("button", { type: "button", ...properties }, text);

const icon = (text, label) => button(text, { className: "icon", title: label, attributes: { "aria-label": label } });

/** Build the elements in `root`; the stage contains `lens`, and the map puts its canvases before it. */
export function buildMap(root, lens) {
  const [closer, farther, home] = [icon("+", "Zoom in"), icon("−", "Zoom out"), icon("⤢", "Show all")];
  const across = element("span", { className: "axis across", attributes: { "aria-hidden": "true" } });
  const up = element("span", { className: "axis up", attributes: { "aria-hidden": "true" } });
  const zoom = element("div", { className: "zoom" }, closer, farther, home);
  const stage = element("div", { className: "stage figure" }, across, up, zoom, lens);

  const layers = LAYERS.map(([value, text], i) => {
    const input = element("input", { type: "radio", name: "layers", value, checked: !i });
    return { input, label: element("label", {}, input, element("span", {}, text)) };
  });
  const segments = element("fieldset", { className: "segments" }, element("legend", { className: "unseen" }, "What the map shows"), ...layers.map(({ label }) => label));
  const planes = element("div", { className: "controls" });
  const legend = element("div", { className: "legend", attributes: { role: "group", "aria-label": "Classes" } });
  const below = element("div", { className: "controls spread" }, legend, segments);

  const digit = element("canvas", { className: "digit", width: 28, height: 28, attributes: { role: "img" } });
  const figure = element("figure", { className: "figure pinned" }, digit);
  const readout = element("dl", { className: "readout" });
  const nearest = button("Nearest dot", { title: "Pin the latent of the image that is nearest to the pin" });
  const morph = button("Add to morph");
  const actions = element("div", { className: "controls" }, nearest, morph);
  const others = element("p", { className: "hushed small" }, "The map is a plane through the pin. These move the pin off it.");
  const sliders = element("div", { className: "sliders" });
  const said = element("p", { className: "unseen", attributes: { "aria-live": "polite" } });
  const side = element("div", { className: "side" }, figure, readout, actions, others, sliders, said);

  root.append(element("div", { className: "map" }, element("div", { className: "chart" }, planes, stage, below), side));
  const inputs = layers.map(({ input }) => input);
  return { stage, across, up, closer, farther, home, layers: inputs, planes, legend, digit, figure, readout, nearest, morph, others, sliders, said };
}
