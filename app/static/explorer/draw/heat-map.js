/** What each pixel adds to -log p(x|z), in colour over the digit. */

import { element, figure } from "../shared/dom.js";
import { greys } from "../shared/images.js";

const STOPS = [[20, 14, 54], [106, 23, 110], [203, 66, 81], [247, 142, 60], [252, 255, 164]]; // dark to bright, for all eyes
const FADE = 0.25; // below this share of the range, the digit is seen through the colour

/** The colour of a share in [0, 1]. */
function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[i].map((part, channel) => Math.round(part + (STOPS[i + 1][channel] - part) * (place - i)));
}

/** `{root, show(digit, explanation, [low, high]), clear()}`: canvas of the digit, a bitmap of the terms, their nats. */
export function makeHeat() {
  const canvas = element("canvas", { className: "digit", width: 28, height: 28, attributes: { role: "img", "aria-label": "No picture yet" } });
  const bar = element("canvas", { className: "heat-bar", width: 64, height: 1, attributes: { "aria-hidden": "true" } });
  const [least, most] = [element("span", {}, "0"), element("span", {}, "nats")];
  const root = element("div", { className: "heat" }, canvas, element("div", { className: "heat-legend small hushed" }, least, bar, most));
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  const context = bar.getContext("2d");
  for (let x = 0; x < bar.width; x++) {
    context.fillStyle = `rgb(${colour(x / (bar.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, 1);
  }

  function clear() {
    paper.clearRect(0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", "No picture yet");
    [least.textContent, most.textContent] = ["0", "nats"];
  }

  function show(digit, explanation, [low, high]) {
    Object.assign(canvas, { width: explanation.width, height: explanation.height });
    paper.imageSmoothingQuality = "high";
    paper.drawImage(digit, 0, 0, canvas.width, canvas.height);
    const image = paper.getImageData(0, 0, canvas.width, canvas.height);
    greys(explanation).forEach((grey, i) => {
      const share = grey / 255;
      const alpha = 0.35 + 0.65 * Math.min(share / FADE, 1);
      colour(share).forEach((part, channel) => {
        image.data[4 * i + channel] = part * alpha + image.data[4 * i + channel] * 0.75 * (1 - alpha);
      });
    });
    paper.putImageData(image, 0, 0);
    [least.textContent, most.textContent] = [figure(low, 1), `${figure(high, 1)} nats`];
    canvas.setAttribute("aria-label", `What each pixel adds, from ${figure(low, 1)} to ${figure(high, 1)} nats; bright is what the model finds oddest`);
  }

  return { root, canvas, show, clear };
}
