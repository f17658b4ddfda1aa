/** A plane through the latent space: two of its dimensions, or the two principal axes of the posterior means. */

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

const unit = (d, i) => Array.from({ length: d }, (_, j) => Number(i === j));

export class Plane {
  /** `axes` are two orthonormal vectors of `d` values; `names` are their titles. */
  constructor(axes, names) {
    Object.assign(this, { axes, names });
  }

  static ofDims(d, dims) {
    return new Plane(dims.map((i) => unit(d, i)), dims.map((i) => `z${i}`));
  }

  static ofAxes(axes) {
    return new Plane(axes, ["axis 1", "axis 2"]);
  }

  /** The coordinates [u, v] of a latent's projection on the plane. */
  project(latent) {
    return this.axes.map((axis) => dot(axis, latent));
  }

  /** `latent` moved parallel to the plane so that it projects to (u, v). */
  put(latent, [u, v]) {
    const [now, above] = this.project(latent);
    const [first, second] = this.axes;
    return latent.map((value, i) => value + (u - now) * first[i] + (v - above) * second[i]);
  }

  /** The covariance [uu, uv, vv] on the plane of independent values with these standard deviations. */
  covariance(std) {
    const [a, b] = this.axes;
    return std.reduce(
      ([uu, uv, vv], s, i) => [uu + s * s * a[i] * a[i], uv + s * s * a[i] * b[i], vv + s * s * b[i] * b[i]],
      [0, 0, 0],
    );
  }
}

/** The first `count` principal axes of the rows of `means`, by power iteration; unit vectors. */
export function principalAxes(means, count = 2) {
  const d = means[0].length;
  const center = unit(d, -1).map((_, i) => means.reduce((sum, row) => sum + row[i], 0) / means.length);
  const covariance = Array.from({ length: d }, () => new Float64Array(d));
  for (const row of means) {
    for (let i = 0; i < d; i++) {
      const left = row[i] - center[i];
      for (let j = 0; j < d; j++) covariance[i][j] += (left * (row[j] - center[j])) / means.length;
    }
  }
  const axes = [];
  while (axes.length < count) axes.push(nextAxis(covariance, axes));
  return axes;
}

/** The eigenvector of the largest eigenvalue, orthogonal to `axes`. */
function nextAxis(covariance, axes) {
  let vector = covariance.map((_, i) => Math.cos(i + 1)); // any start that is not orthogonal to the axis
  for (let step = 0; step < 500; step++) {
    let next = covariance.map((row) => dot(row, vector));
    for (const axis of axes) {
      const along = dot(axis, next);
      next = next.map((value, i) => value - along * axis[i]);
    }
    const length = Math.hypot(...next) || 1;
    next = next.map((value) => value / length);
    const change = Math.hypot(...next.map((value, i) => value - vector[i]));
    vector = next;
    if (change < 1e-9) break;
  }
  const largest = vector.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
  return vector.map((value) => value * Math.sign(largest || 1));
}
