/** Sliders for the dimensions of a latent, in the order of falling KL. */

import { element, figure } from "../shared/dom.js";

const SHOWN = 8; // sliders; a button shows the others
const REACH = 4; // standard deviations of the prior

/** `makeSliders(root, onInput)`: `set(dims, latent, kl)` builds them, `show(latent)` moves them;
 * `onInput(dim, value)` is called when the user moves one. */
export function makeSliders(root, onInput) {
  let rows = new Map();

  function row(dim, kl) {
    const output = element("output");
    const input = element("input", { type: "range", min: -REACH, max: REACH, step: 0.01, id: `slider-${dim}` });
    input.oninput = () => onInput(dim, Number(input.value));
    const title = kl === undefined ? "" : `KL ${figure(kl)} nats`;
    const label = element("label", { htmlFor: input.id, title }, `z${dim}`);
    rows.set(dim, { input, output });
    return element("div", { className: "slider" }, label, input, output);
  }

  function show(latent) {
    for (const [dim, { input, output }] of rows) {
      input.value = latent[dim];
      output.value = figure(latent[dim]);
    }
  }

  return {
    show,
    set(dims, latent, kl) {
      rows = new Map();
      const made = dims.map((dim) => row(dim, kl?.[dim]));
      root.replaceChildren(...made.slice(0, SHOWN));
      root.hidden = !dims.length;
      const rest = made.slice(SHOWN);
      if (rest.length) {
        const more = element("button", { type: "button", className: "quiet" }, `The other ${rest.length}`);
        more.onclick = () => {
          more.replaceWith(...rest);
          rest[0].querySelector("input").focus();
        };
        root.append(more);
      }
      show(latent);
    },
  };
}
