/** A panel of the page: draw. */

export function mount() {}
