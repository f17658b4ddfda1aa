/** A panel of the page: samples. */

export function mount() {}
