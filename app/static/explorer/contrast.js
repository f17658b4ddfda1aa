/** A panel of the page: contrast. */

export function mount() {}
