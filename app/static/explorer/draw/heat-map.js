/** The heat map: each pixel's term of -log p(x|z), in color over the drawing. */

import { element, figure } from "../shared/dom.js";
import { greys } from "../shared/images.js";

const STOPS = [[20, 14, 54], [106, 23, 110], [203, 66, 81], [247, 142, 60], [252, 255, 164]]; // RGB, from dark to bright, so that color-blind people can read it
const FADE = 0.25; // below this share of the range, the drawing shines through the color

/** The RGB color of a value in [0, 1]. */
function color(share) {
  const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[i].map((part, channel) => Math.round(part + (STOPS[i + 1][channel] - part) * (place - i)));
}

/** `{root, canvas, show(digit, explanation, [low, high]), clear()}`: `digit` is the drawing's canvas, `explanation` a bitmap
 * of the terms, [low, high] their range in nats. */
export function makeHeatMap() {
  const canvas = element("canvas", { className: "digit", width: 28, height: 28, attributes: { role: "img", "aria-label": "No image yet" } });
  const bar = element("canvas", { className: "heat-bar", width: 64, height: 1, attributes: { "aria-hidden": "true" } });
  const [lowLabel, highLabel] = [element("span", {}, "0"), element("span", {}, "nats")];
  const root = element("div", { className: "heat" }, canvas, element("div", { className: "heat-legend small hushed" }, lowLabel, bar, highLabel));
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  const context = bar.getContext("2d");
  for (let x = 0; x < bar.width; x++) {
    context.fillStyle = `rgb(${color(x / (bar.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, 1);
  }

  function clear() {
    paper.clearRect(0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", "No image yet");
    [lowLabel.textContent, highLabel.textContent] = ["0", "nats"];
  }

  function show(digit, explanation, [low, high]) {
    Object.assign(canvas, { width: explanation.width, height: explanation.height });
    paper.imageSmoothingQuality = "high";
    paper.drawImage(digit, 0, 0, canvas.width, canvas.height);
    const image = paper.getImageData(0, 0, canvas.width, canvas.height);
    greys(explanation).forEach((grey, i) => {
      const share = grey / 255;
      const alpha = 0.35 + 0.65 * Math.min(share / FADE, 1);
      color(share).forEach((part, channel) => {
        image.data[4 * i + channel] = part * alpha + image.data[4 * i + channel] * 0.75 * (1 - alpha);
      });
    });
    paper.putImageData(image, 0, 0);
    [lowLabel.textContent, highLabel.textContent] = [figure(low, 1), `${figure(high, 1)} nats`];
    canvas.setAttribute("aria-label", `Each pixel's term, from ${figure(low, 1)} to ${figure(high, 1)} nats; bright pixels are the least likely`);
  }

  return { root, canvas, show, clear };
}
