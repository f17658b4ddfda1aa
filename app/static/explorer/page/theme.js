/** Dark and light: as the system has it, until the switch is used; then as the address or the last visit says. */

const NAME = "vaeserve-theme";
const OTHER = { dark: "light", light: "dark" };

const system = matchMedia("(prefers-color-scheme: dark)");

/** Make `button` the switch. Whoever paints with the theme's colours listens to the event "themechange" of document. */
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
