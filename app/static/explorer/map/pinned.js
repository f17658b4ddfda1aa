/** The pinned latent: its decoded image, its coordinates, and a description for screen readers. */

import { element } from "../shared/dom.js";
import { paint } from "./lens.js";

const PAUSE = 350; // milliseconds without a change before the description is read out

/** `makePinned({digit, figure, readout, said}, app)`: `show(latent, description)` decodes and describes, `say(description)` only describes. */
export function makePinned({ digit, figure, readout, said }, app) {
  let timer = 0;

  const decode = app.latest(async (latent) => {
    const { bitmap } = await app.image("decode/image", { query: { latent }, element: figure });
    paint(digit, bitmap);
    digit.dataset.latent = latent.join(",");
  });

  const row = (name, value) => [element("dt", {}, name), element("dd", {}, value)];

  function say({ names, values, label }) {
    clearTimeout(timer);
    const near = label === null ? "" : ` Nearest class ${app.model.nameOf(label)}.`;
    timer = setTimeout(() => (said.textContent = `Latent ${names.map((name, i) => `${name} ${values[i]}`).join(", ")}.${near}`), PAUSE);
  }

  return {
    say,
    show(latent, description) {
      const { names, values, label } = description;
      readout.replaceChildren(...names.flatMap((name, i) => row(name, values[i])), ...(label === null ? [] : row("nearest", app.model.nameOf(label))));
      digit.setAttribute("aria-label", `The decoded image of the pinned latent${label === null ? "" : `, nearest class ${app.model.nameOf(label)}`}`);
      say(description);
      decode(latent);
    },
  };
}
