/** Links to what the server may want a key for: a link brings none, so where there is one their answer is fetched with it. */

/** In every link of the page with `data-answer`; it opens in a new tab, whatever key or button of the mouse is held. */
export function mountLinks(key, send, tell) {
  async function open(event) {
    const link = event.target.closest("a[data-answer]");
    if (!link || !key.value || event.button > 1) return;
    event.preventDefault();
    try {
      const answer = await send({ path: link.getAttribute("href") });
      const url = URL.createObjectURL(await answer.blob());
      if (!window.open(url)) location.assign(url); // tabs are blocked
    } catch (error) {
      tell(error);
    }
  }
  for (const kind of ["click", "auxclick"]) document.addEventListener(kind, open);
}
