/** A panel of the page: morph. */

export function mount() {}
