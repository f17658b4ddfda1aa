/** The API key: asked for once, when the server answers 401, and kept until the tab is closed. */

const NAME = "vaeserve-key";

/** `dialog` is a <dialog> with a form of one input. */
export function makeKey(dialog) {
  const form = dialog.querySelector("form");
  const input = dialog.querySelector("input");
  const wrong = dialog.querySelector("[role=alert]");
  let asking = null;

  function ask(refused) {
    wrong.textContent = refused ? "The server refused this key." : "";
    input.value = "";
    dialog.showModal();
    return new Promise((done) => {
      form.onsubmit = () => {
        sessionStorage.setItem(NAME, input.value.trim());
        asking = null;
        done();
      };
    });
  }

  dialog.addEventListener("cancel", (event) => event.preventDefault()); // the page shows nothing without a key

  return {
    /** The key that the user gave, or null. */
    get value() {
      return sessionStorage.getItem(NAME);
    },

    /** Ask the user, unless there is already another key than the `refused` one; concurrent calls share one dialog. */
    ask(refused) {
      if (this.value && this.value !== refused) return Promise.resolve();
      asking ??= ask(refused);
      return asking;
    },
  };
}
