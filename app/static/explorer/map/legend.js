/** The legend: classes and their colors; the class under the pointer, or the pressed one, is highlighted on the map. */

import { element } from "../shared/dom.js";

/** `makeLegend(root, onShow)`: `set(model)` fills the legend; `onShow(label)` is called with a class to highlight, or null. */
export function makeLegend(root, onShow) {
  let pressed = null;

  function button(label, name) {
    const swatch = element("span", { className: "swatch", attributes: { "aria-hidden": "true" } });
    swatch.style.background = `var(--class-${label}, hsl(${(label * 137.5) % 360} 60% 55%))`;
    const made = element("button", { type: "button", className: "class" }, swatch, name);
    made.setAttribute("aria-pressed", "false");
    made.setAttribute("aria-label", `Class ${name} alone`);
    made.onpointerenter = () => onShow(label);
    made.onpointerleave = () => onShow(pressed);
    made.onclick = () => {
      pressed = pressed === label ? null : label;
      for (const [i, other] of [...root.children].entries()) other.setAttribute("aria-pressed", String(i === pressed));
      onShow(pressed);
    };
    return made;
  }

  return {
    set({ labels, nameOf }) {
      pressed = null;
      root.replaceChildren(...Array.from({ length: labels }, (_, label) => button(label, nameOf(label))));
      root.hidden = !labels;
    },
  };
}
