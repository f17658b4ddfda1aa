/** A plain autoencoder beside a VAE: the latents of real digits, and decoded draws from N(0, I). */

import { button, whenNear } from "../shared/controls.js";
import { element, figure } from "../shared/dom.js";
import { Scatter } from "../shared/scatter.js";
import { ImageGrid } from "../shared/image-grid.js";

const PREFERRED = ["digits-ae", "mnist-2d"];
const DRAWS = 25;
const RADIUS = 2.448; // of the circle that holds 95 % of N(0, I) on a plane: sqrt(-2 log 0.05)

const ABSENT = "This server does not have both a plain autoencoder and a VAE of two latent dimensions to compare.";

/** A plain autoencoder and a VAE of two latent dimensions and the same image size; null if one is missing.
 *
 * Of several versions of the VAE, the one with the autoencoder's number: digits-ae 1 has the net of mnist-2d 1, not of 2.
 */
function findPair(models) {
  const isVae = ({ manifest }) => "log_std" in manifest.graphs.encoder.outputs;
  const isPreferred = ({ name }) => Number(PREFERRED.includes(name));
  const size = ({ manifest: { image } }) => `${image.width} x ${image.height}`;
  const planes = models.filter(({ manifest }) => manifest.latent.shape.join() === "2").sort((a, b) => isPreferred(b) - isPreferred(a) || b.version - a.version);
  const plain = planes.find((model) => !isVae(model));
  const vaes = planes.filter((model) => isVae(model) && plain && size(model) === size(plain));
  const first = vaes.filter(({ name }) => name === vaes[0].name);
  return vaes.length ? [plain, first.find(({ version }) => version === plain.version) ?? first[0]] : null;
}

/** Percentage of the points in the circle. */
const share = (mean) => (100 * mean.filter(([x, y]) => Math.hypot(x, y) <= RADIUS).length) / mean.length;

class Side {
  constructor(app, title, { name, version, manifest: { image } }) {
    Object.assign(this, { app, image, query: { model: name, version } });
    this.scatter = new Scatter(`${title}: real digits on its map, and the circle that holds 95 % of the prior`);
    this.grid = new ImageGrid(`${title}, sample`, (i) => this.#choose(i));
    this.grid.reserve(DRAWS, image);
    this.share = element("p", { className: "small hushed share" });
    const heading = element("h3", {}, title, element("span", { className: "hushed" }, ` ${name} ${version}`));
    const map = element("figure", { className: "shown" }, this.scatter.root, element("figcaption", {}, this.share));
    const samples = element("figure", { className: "shown" }, this.grid.root, element("figcaption", {}, "Decoded draws of the prior"));
    this.root = element("div", { className: "side-of" }, heading, map, samples);
  }

  async map() {
    const { mean, labels } = await this.app.ask("posteriors", { query: this.query, element: this.scatter.root });
    this.scatter.mark({ circle: RADIUS });
    this.scatter.set(mean, labels);
    this.share.textContent = `${figure(share(mean), 0)} % of real digits lie in the circle, where 95 % of the prior’s draws fall.`;
  }

  async samples(seed) {
    this.drawn = await this.app.ask("sample", { query: { ...this.query, n: DRAWS, seed }, element: this.grid.root });
    this.grid.show(this.drawn.images, this.image);
    this.scatter.mark({ crosses: [] });
  }

  /** Mark the latent of a sample on the scatter. */
  #choose(index) {
    this.grid.mark(index);
    this.scatter.mark({ crosses: [this.drawn.latents[index]] });
  }
}

export function mount(root, app) {
  const both = findPair(app.models.models);
  if (!both) {
    root.append(element("p", { className: "hushed" }, ABSENT));
    return;
  }
  const sides = [new Side(app, "Plain autoencoder", both[0]), new Side(app, "Variational autoencoder", both[1])];
  const words = element(
    "p",
    { className: "see" },
    "The plain autoencoder puts digits anywhere, also far outside the circle, so many draws land where no digit is and decode to broken shapes. ",
    "Training pulled the VAE towards the prior: nearly all its digits lie in the circle, and more of its draws decode to a digit.",
  );
  let seed = 1;
  const draw = app.latest(async () => {
    for (const side of sides) await side.samples(seed);
  });
  const another = button("Other draws", () => {
    seed += 1;
    draw();
  });
  const columns = element("div", { className: "columns" }, ...sides.map((side) => side.root));
  root.append(element("div", { className: "contrast" }, words, columns, element("div", { className: "controls" }, another)));
  whenNear(root, () => {
    draw();
    for (const side of sides) side.map().catch(app.tell);
  });
}
