/** The points of a morph: a list that can be reordered, and text for the address: "c3;0.5,-1.2" is class 3, then a latent. */

import { button } from "../shared/controls.js";
import { element } from "../shared/dom.js";

export const MAX_POINTS = 16;

const DECIMALS = 5;

export const ofClass = (label, { manifest }) => ({ label, name: manifest.classes[label] ?? `class ${label}` });

export const ofLatent = (latent, name) => ({ latent: latent.map((value) => +value.toFixed(DECIMALS)), name: name === null ? "point" : String(name) });

/** A point in the JSON body of POST /interpolate. */
export const toRequest = ({ label, latent }) => (latent ? { latent } : { label });

export const write = (points) => points.map(({ label, latent }) => (latent ? latent.join(",") : `c${label}`)).join(";");

/** The points of a text, without those that do not fit the model. */
export function read(text, model) {
  const { d, labels } = model;
  const points = (text ?? "").split(";").flatMap((part) => {
    if (/^c\d+$/.test(part)) return Number(part.slice(1)) < labels ? [ofClass(Number(part.slice(1)), model)] : [];
    const latent = part.split(",").map(Number);
    return part && latent.length === d && latent.every(Number.isFinite) ? [ofLatent(latent, "point")] : [];
  });
  return points.slice(0, MAX_POINTS);
}

/** The list of points: `{root, show(points), paint(index, strip, model)}`; `onChange(points)` gets the changed list. */
export function makeList(onChange) {
  const root = element("ol", { className: "points", attributes: { "aria-label": "Points of the morph, in order" } });
  let [points, focus] = [[], null];

  function move(index, by) {
    const next = points.filter((_, i) => i !== index);
    next.splice(index + by, 0, points[index]);
    focus = { index: index + by, name: by < 0 ? "earlier" : "later" };
    onChange(next);
  }

  function remove(index) {
    focus = { index: Math.min(index, points.length - 2), name: "remove" };
    onChange(points.filter((_, i) => i !== index));
  }

  function item(point, index) {
    const words = `${index + 1}, ${point.name}`;
    const act = (name, text, title, onclick, disabled = false) =>
      button(text, onclick, { className: `quiet ${name}`, title, disabled, ariaLabel: `${title}: ${words}` });
    const canvas = element("canvas", { className: "digit", width: 28, height: 28, attributes: { "aria-hidden": "true" } });
    const actions = element(
      "span",
      { className: "point-actions" },
      act("earlier", "←", "Move earlier", () => move(index, -1), index === 0),
      act("remove", "×", "Remove", () => remove(index)),
      act("later", "→", "Move later", () => move(index, 1), index === points.length - 1),
    );
    return element("li", { className: "point" }, canvas, element("span", { className: "small" }, point.name), actions);
  }

  return {
    root,
    show(given) {
      points = given;
      root.replaceChildren(...points.map(item));
      const wanted = focus && root.children[focus.index];
      if (wanted) [`.${focus.name}`, ".remove"].map((name) => wanted.querySelector(name)).find((one) => !one.disabled).focus();
      focus = null;
    },
    /** Show the image of a point: the frame of `strip` that starts at pixel `left`. */
    paint(index, strip, left, { width, height }) {
      const canvas = root.children[index]?.querySelector("canvas");
      if (!canvas) return;
      Object.assign(canvas, { width, height });
      canvas.getContext("2d").drawImage(strip, left, 0, width, height, 0, 0, width, height);
    },
  };
}
