/** Dark or light theme: the address's, else that of the last visit, else the system's. */

const NAME = "vaeserve-theme";
const OTHER = { dark: "light", light: "dark" };

const system = matchMedia("(prefers-color-scheme: dark)");

/** Make `button` switch the theme. Canvases that use the theme's colors listen to "themechange" on document. */
export function mountTheme(button, state) {
  const chosen = () => [state.get("theme"), localStorage.getItem(NAME)].find((name) => name in OTHER);
  const theme = () => chosen() ?? (system.matches ? "dark" : "light");

  function apply() {
    document.documentElement.dataset.theme = theme();
    button.textContent = OTHER[theme()] === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to the ${OTHER[theme()]} theme`);
    document.dispatchEvent(new Event("themechange"));
  }

  button.onclick = () => {
    const next = OTHER[theme()];
    localStorage.setItem(NAME, next);
    state.set({ theme: next });
  };
  state.onChange(["theme"], apply);
  system.addEventListener("change", apply);
  apply();
}
