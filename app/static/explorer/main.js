/** Starts the page: reads the models, makes `app`, mounts the panels. If one panel fails, the others still work. */

import { makeApp } from "./app.js";
import * as contrast from "./contrast/contrast.js";
import * as draw from "./draw/draw.js";
import * as map from "./map/map.js";
import * as models from "./models/models.js";
import * as morph from "./morph/morph.js";
import { mountNav } from "./page/nav.js";
import * as samples from "./samples/samples.js";
import { makeState } from "./page/state.js";
import { mountTheme } from "./page/theme.js";

const PANELS = { map, draw, morph, samples, contrast, models };

async function main() {
  const state = makeState();
  mountTheme(document.getElementById("theme"), state);
  const app = await makeApp(state);
  mountNav(app);
  for (const [id, panel] of Object.entries(PANELS)) {
    try {
      panel.mount(document.querySelector(`#${id} .panel`), app);
    } catch (error) {
      app.tell(error);
      console.error(error);
    }
  }
  document.documentElement.dataset.ready = "";
}

main().catch((error) => {
  document.getElementById("messages").textContent = error.message;
});
