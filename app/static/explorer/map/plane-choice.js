/** The choice of the map's plane: two latent dimensions, or the two principal axes. */

import { element, figure } from "../shared/dom.js";

/** `onChoose(text)` is called with the value for the page's address: "axes", or two dimensions such as "3,7". */
export function makePlaneChoice(root, onChoose) {
  const across = element("select");
  const up = element("select");
  const name = (text, select) => element("label", { className: "choice" }, element("span", { className: "hushed" }, text), select);
  root.append(name("Across", across), name("Up", up));

  function choose(changed, other) {
    if (changed.value === "axes") return onChoose("axes");
    const dims = [across, up].map(({ value }) => value);
    if (dims.includes("axes") || dims[0] === dims[1]) {
      const free = [...other.options].find(({ value }) => value !== "axes" && value !== changed.value);
      dims[[across, up].indexOf(other)] = free.value;
    }
    return onChoose(dims.join(","));
  }

  across.onchange = () => choose(across, up);
  up.onchange = () => choose(up, across);

  return {
    /** Fill the choice with the dimensions of a model, by KL, and select `chosen`. */
    set({ d, order, manifest }, chosen) {
      root.hidden = d <= 2;
      const kl = manifest.metrics.kl_per_dimension;
      const options = (i) => [
        element("option", { value: "axes" }, `principal axis ${i + 1}`),
        ...order.map((dim) => element("option", { value: dim }, kl ? `z${dim}, ${figure(kl[dim])} nats` : `z${dim}`)),
      ];
      const values = chosen === "axes" ? ["axes", "axes"] : chosen.split(",");
      for (const [i, select] of [across, up].entries()) {
        select.replaceChildren(...options(i));
        select.value = values[i];
      }
    },
  };
}
