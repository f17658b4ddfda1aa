/** The pinned latent: its picture, what it is, and the same in words for who cannot see it. */

import { element } from "../shared/dom.js";
import { paint } from "./lens.js";

const SILENCE = 350; // milliseconds of rest before something is said

/** `makePinned({digit, figure, readout, said}, app)`: `show(latent, words)` decodes and tells, `say(words)` tells. */
export function makePinned({ digit, figure, readout, said }, app) {
  let timer = 0;

  const decode = app.latest(async (latent) => {
    const { bitmap } = await app.picture("decode/image", { query: { latent }, element: figure });
    paint(digit, bitmap);
    digit.dataset.latent = latent.join(",");
  });

  const row = (name, value) => [element("dt", {}, name), element("dd", {}, value)];

  function say({ names, values, label }) {
    clearTimeout(timer);
    const near = label === null ? "" : ` Nearest class ${app.model.nameOf(label)}.`;
    timer = setTimeout(() => (said.textContent = `Latent ${names.map((name, i) => `${name} ${values[i]}`).join(", ")}.${near}`), SILENCE);
  }

  return {
    say,
    show(latent, words) {
      const { names, values, label } = words;
      readout.replaceChildren(...names.flatMap((name, i) => row(name, values[i])), ...(label === null ? [] : row("nearest", app.model.nameOf(label))));
      digit.setAttribute("aria-label", `The decoded picture of the pinned latent${label === null ? "" : `, nearest class ${app.model.nameOf(label)}`}`);
      say(words);
      decode(latent);
    },
  };
}
