/** Elements in one line: `element("button", {type: "button", onclick}, "Go")`; attributes with a dash go by `attributes`. */
export function element(name, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A number as people read it: a real minus sign, so many decimals. */
export const figure = (value, decimals = 2) => value.toFixed(decimals).replace("-", "−");

/** The colours of so many classes, as the style sheet has them for the theme of now. */
export function classColours(count) {
  const style = getComputedStyle(document.documentElement);
  return Array.from({ length: Math.max(count, 1) }, (_, i) => {
    const colour = style.getPropertyValue(`--class-${i}`).trim();
    return colour || `hsl(${(i * 137.5) % 360} 60% 55%)`;
  });
}
