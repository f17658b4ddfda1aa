/** DOM elements in one line: `element("button", {type: "button", onclick}, "Go")`; `attributes` sets those without a property. */
export function element(name, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A number as text: with a minus sign, not a hyphen, and `decimals` decimal places. */
export const figure = (value, decimals = 2) => value.toFixed(decimals).replace("-", "−");

/** The colors of `count` classes, from the style sheet, for the current theme. */
export function classColors(count) {
  const style = getComputedStyle(document.documentElement);
  return Array.from({ length: Math.max(count, 1) }, (_, i) => {
    const color = style.getPropertyValue(`--class-${i}`).trim();
    return color || `hsl(${(i * 137.5) % 360} 60% 55%)`;
  });
}
