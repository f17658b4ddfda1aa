/** Links to responses that may need the API key: a link cannot send one, so a click fetches the response with the key. */

/** Handle all links of the page with `data-answer`; the response opens in a new tab. */
export function mountLinks(key, send, tell) {
  async function open(event) {
    const link = event.target.closest("a[data-answer]");
    if (!link || !key.value || event.button > 1) return;
    event.preventDefault();
    try {
      const answer = await send({ path: link.getAttribute("href") });
      const url = URL.createObjectURL(await answer.blob());
      if (!window.open(url)) location.assign(url); // the browser blocks new tabs
    } catch (error) {
      tell(error);
    }
  }
  for (const kind of ["click", "auxclick"]) document.addEventListener(kind, open);
}
