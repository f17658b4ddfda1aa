/** The navigation bar: marks the section in view, and has the choice of the model. */

import { element } from "../shared/dom.js";

/** Fill the choice of models, and mark the link of the section in view. */
export function mountNav(app) {
  mountChoice(document.getElementById("model"), app);
  const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(target.id).setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-40% 0px -55%" },
  );
  for (const id of links.keys()) observer.observe(document.getElementById(id));
}

function mountChoice(select, app) {
  const newest = new Map(app.models.models.map(({ name, versions }) => [name, Math.max(...versions)]));
  for (const { name, version } of app.models.models) {
    const text = newest.get(name) === version ? name : `${name}, version ${version}`;
    select.append(element("option", { value: `${name} ${version}` }, text));
  }
  select.onchange = () => {
    const [name, version] = select.value.split(" ");
    app.choose(name, Number(version));
  };
  app.onModel(({ name, version }) => (select.value = `${name} ${version}`));
}
