// CUDA twins of likelihoods/reference.py.

// A block takes a row.
extern "C" __global__ void bernoulli_nll(const REAL *logits, i64 logits_row_stride, const REAL *x,
                                         i64 x_row_stride, const REAL *observed,
                                         i64 observed_row_stride, REAL scale, REAL *nll,
                                         REAL *dlogits, i64 dlogits_row_stride, int columns) {
  logits = block_row(logits, logits_row_stride), x = block_row(x, x_row_stride);
  observed = block_row(observed, observed_row_stride);
  dlogits = block_row(dlogits, dlogits_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const bool known = !observed || observed[j] != 0;
    const REAL logit = logits[j], target = known ? x[j] : (REAL)0;
    total += known ? softplus(logit) - target * logit : (REAL)0;
    if (dlogits) dlogits[j] = known ? scale * (sigmoid(logit) - target) : (REAL)0;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) nll[blockIdx.x] = total;
}

extern "C" __global__ void bernoulli_mean(const REAL *logits, i64 logits_row_stride, REAL *mean,
                                          i64 mean_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  block_row(mean, mean_row_stride)[j] = sigmoid(block_row(logits, logits_row_stride)[j]);
}

extern "C" __global__ void bernoulli_draw(const REAL *logits, i64 logits_row_stride, const REAL *u,
                                          i64 u_row_stride, REAL *x, i64 x_row_stride,
                                          int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL p = sigmoid(block_row(logits, logits_row_stride)[j]);
  block_row(x, x_row_stride)[j] = block_row(u, u_row_stride)[j] < p ? (REAL)1 : (REAL)0;
}

// A block takes a row.
extern "C" __global__ void gaussian_nll(const REAL *mean, i64 mean_row_stride,
                                        const REAL *noise_logvar, const REAL *x, i64 x_row_stride,
                                        const REAL *observed, i64 observed_row_stride, REAL scale,
                                        REAL *nll, REAL *dmean, i64 dmean_row_stride,
                                        REAL *dnoise_logvar, int columns) {
  const REAL s = hold_logvar(noise_logvar[0]), precision = exp(-s);
  mean = block_row(mean, mean_row_stride), x = block_row(x, x_row_stride);
  observed = block_row(observed, observed_row_stride), dmean = block_row(dmean, dmean_row_stride);
  REAL squares = 0, count = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const bool known = !observed || observed[j] != 0;
    const REAL residual = known ? x[j] - mean[j] : (REAL)0;
    squares += residual * residual;
    count += known;
    if (dmean) dmean[j] = -scale * precision * residual;
  }
  squares = precision * block_sum(squares);
  count = block_sum(count);
  if (threadIdx.x > 0) return;
  nll[blockIdx.x] = (squares + count * ((REAL)LOG_2PI + s)) / 2;
  if (dnoise_logvar)
    dnoise_logvar[blockIdx.x] = is_held(noise_logvar[0]) ? (REAL)0 : scale * (count - squares) / 2;
}

extern "C" __global__ void gaussian_draw(const REAL *mean, i64 mean_row_stride,
                                         const REAL *noise_logvar, const REAL *eps,
                                         i64 eps_row_stride, REAL *x, i64 x_row_stride,
                                         int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL std = exp(hold_logvar(noise_logvar[0]) / 2);
  block_row(x, x_row_stride)[j] =
      block_row(mean, mean_row_stride)[j] + std * block_row(eps, eps_row_stride)[j];
}

// --- tables ----------------------------------------------------------------------------------------
//
// A block takes a row and goes through the groups; its threads share out the columns of a group. A
// category has few columns and is one variable: one thread takes it, another one the next.

// Grey values, for a = |y|: of y < 0 the mean, and ln((1 - e^-a) / a); by their series for a < 1.
struct Grey {
  REAL low_mean, log_mass;
};

__device__ inline Grey grey(REAL a) {
  if (a >= 1) {
    const REAL e = exp(-a);
    return {1 / a - e / (1 - e), log((1 - e) / a)};
  }
  const REAL c[] = {(REAL)(1. / 12), (REAL)(-1. / 720), (REAL)(1. / 30240), (REAL)(-1. / 1209600),
                    (REAL)(1. / 47900160), (REAL)(-691. / 1307674368000),
                    (REAL)(1. / 74724249600), (REAL)(-3617. / 10670622842880000),
                    (REAL)(43867. / 5109094217170944000)};
  REAL mean = 0, mass = 0;
  for (int n = 9; n > 0; --n) {
    mean = mean * (a * a) + c[n - 1];
    mass = mass * (a * a) + c[n - 1] / (2 * n);
  }
  return {(REAL)0.5 - a * mean, a * (a * mass - (REAL)0.5)};
}

__device__ inline REAL grey_mean(REAL y) {
  const REAL low = grey(fabs(y)).low_mean;
  return y < 0 ? low : 1 - low;
}

__device__ inline REAL grey_draw(REAL y, REAL u) {
  const REAL a = fabs(y) < (REAL)EPSILON ? (REAL)EPSILON : fabs(y);
  const REAL v = y < 0 ? u : 1 - u, rest = y < 0 ? 1 - u : u, t = -v * expm1(-a);
  REAL low = -(t < (REAL)0.5 ? log1p(-t) : log(rest + v * exp(-a))) / a;
  low = low > 1 ? (REAL)1 : low;
  return y < 0 ? low : 1 - low;
}

__device__ inline REAL hold_log_rate(REAL log_rate) {
  return log_rate > (REAL)LOG_RATE_BOUND ? (REAL)LOG_RATE_BOUND : log_rate;
}

// The largest of n logits, and the sum of exp of how far they are below it.
struct Softmax {
  REAL top, total;
};

__device__ inline Softmax softmax(const REAL *y, i64 n) {
  REAL top = y[0], total = 0;
  for (i64 j = 1; j < n; ++j) top = y[j] > top ? y[j] : top;
  for (i64 j = 0; j < n; ++j) total += exp(y[j] - top);
  return {top, total};
}

// Outcomes by their distance from the mode, in double, until their probabilities are more than u.
__device__ inline double draw_count(double log_rate, double u) {
  log_rate = log_rate > LOG_RATE_BOUND ? LOG_RATE_BOUND : log_rate;
  const double rate = exp(log_rate), mode = floor(rate);
  double above = exp(mode * log_rate - rate - lgamma(mode + 1)), below = above, total = above;
  if (u < total) return mode;
  double steps = 0;
  while (above + below >= 2.2e-16 && steps < COUNT_STEPS) {
    steps += 1;
    above *= rate / (mode + steps);
    total += above;
    if (u < total) return mode + steps;
    below *= (mode - steps + 1) / rate;
    total += below;
    if (u < total) return mode - steps;
  }
  return mode + steps;
}

extern "C" __global__ void mixed_nll(const REAL *y, i64 y_row_stride, const REAL *noise_logvar,
                                     const i64 *groups, const REAL *units, const REAL *x,
                                     i64 x_row_stride, const REAL *observed,
                                     i64 observed_row_stride, REAL scale, REAL *nll, REAL *dy,
                                     i64 dy_row_stride, REAL *dnoise_logvar,
                                     i64 dnoise_logvar_row_stride, u32 n_groups, int columns) {
  const REAL *offset = units, *slope = units + columns, *shift = units + 2 * (i64)columns;
  y = block_row(y, y_row_stride), x = block_row(x, x_row_stride);
  observed = block_row(observed, observed_row_stride), dy = block_row(dy, dy_row_stride);
  dnoise_logvar = block_row(dnoise_logvar, dnoise_logvar_row_stride);
  REAL total = 0;
  for (u32 g = 0; g < n_groups; ++g) {
    const i64 kind = groups[3 * g], first = groups[3 * g + 1], last = groups[3 * g + 2];
    if (kind == KIND_CATEGORY) {
      if (threadIdx.x != g % BLOCK) continue;
      const bool known = !observed || observed[first] != 0;
      const Softmax of = softmax(y + first, last - first);
      const REAL log_sum = of.top + log(of.total);
      for (i64 j = first; j < last; ++j) {
        const REAL logit = y[j], target = known ? x[j] : (REAL)0;
        total += known ? target * (log_sum - logit) + offset[j] + slope[j] * target : (REAL)0;
        if (dy) dy[j] = known ? scale * (exp(logit - of.top) / of.total - target) : (REAL)0;
      }
      continue;
    }
    for (i64 j = first + threadIdx.x; j < last; j += BLOCK) {
      if (observed && observed[j] == 0) {
        if (dy) dy[j] = 0;
        if (dy && (kind == KIND_REAL || kind == KIND_BOUNDED)) dnoise_logvar[j] = 0;
        continue;
      }
      const REAL given = y[j], target = x[j];
      REAL cost, d;
      if (kind == KIND_REAL || kind == KIND_BOUNDED) {
        const REAL s = hold_logvar(noise_logvar[j]), precision = exp(-s);
        const REAL mean = kind == KIND_REAL ? given : sigmoid(given), residual = target - mean;
        const REAL squares = precision * residual * residual;
        cost = ((REAL)LOG_2PI + s + squares) / 2;
        d = -precision * residual * (kind == KIND_REAL ? (REAL)1 : mean * sigmoid(-given));
        if (dy) dnoise_logvar[j] = is_held(noise_logvar[j]) ? (REAL)0 : scale * (1 - squares) / 2;
      } else if (kind == KIND_GREY) {
        const Grey of = grey(fabs(given));
        cost = (given > 0 ? given : (REAL)0) + of.log_mass - target * given;
        d = (given < 0 ? of.low_mean : 1 - of.low_mean) - target;
      } else if (kind == KIND_BINARY) {
        cost = softplus(given) - target * given;
        d = sigmoid(given) - target;
      } else {
        const REAL log_rate = given + shift[j], held = hold_log_rate(log_rate), rate = exp(held);
        cost = rate + rate * (log_rate - held) - target * log_rate + lgamma(target + 1);
        d = rate - target;
      }
      total += cost + offset[j] + slope[j] * target;
      if (dy) dy[j] = scale * d;
    }
  }
  total = block_sum(total);
  if (threadIdx.x == 0) nll[blockIdx.x] = total;
}

extern "C" __global__ void mixed_mean(const REAL *y, i64 y_row_stride, const i64 *groups,
                                      const REAL *units, REAL *mean, i64 mean_row_stride,
                                      u32 n_groups, int columns) {
  const REAL *shift = units + 2 * (i64)columns;
  y = block_row(y, y_row_stride), mean = block_row(mean, mean_row_stride);
  for (u32 g = 0; g < n_groups; ++g) {
    const i64 kind = groups[3 * g], first = groups[3 * g + 1], last = groups[3 * g + 2];
    if (kind == KIND_CATEGORY) {
      if (threadIdx.x != g % BLOCK) continue;
      const Softmax of = softmax(y + first, last - first);
      for (i64 j = first; j < last; ++j) mean[j] = exp(y[j] - of.top) / of.total;
      continue;
    }
    for (i64 j = first + threadIdx.x; j < last; j += BLOCK)
      mean[j] = kind == KIND_REAL    ? y[j]
                : kind == KIND_GREY  ? grey_mean(y[j])
                : kind == KIND_COUNT ? exp(hold_log_rate(y[j] + shift[j]))
                                     : sigmoid(y[j]);
  }
}

extern "C" __global__ void mixed_draw(const REAL *y, i64 y_row_stride, const REAL *noise_logvar,
                                      const i64 *groups, const REAL *units, REAL *x,
                                      i64 x_row_stride, u32 n_groups, int columns) {
  const REAL *shift = units + 2 * (i64)columns;
  y = block_row(y, y_row_stride), x = block_row(x, x_row_stride);
  for (u32 g = 0; g < n_groups; ++g) {
    const i64 kind = groups[3 * g], first = groups[3 * g + 1], last = groups[3 * g + 2];
    if (kind == KIND_CATEGORY) {
      if (threadIdx.x != g % BLOCK) continue;
      const Softmax of = softmax(y + first, last - first);
      const REAL u = x[first];
      REAL below = 0;
      i64 drawn = first;
      for (i64 j = first; j < last - 1; ++j) {
        below += exp(y[j] - of.top) / of.total;
        drawn += below <= u;
      }
      for (i64 j = first; j < last; ++j) x[j] = j == drawn;
      continue;
    }
    for (i64 j = first + threadIdx.x; j < last; j += BLOCK) {
      const REAL given = y[j], noise = x[j];
      if (kind == KIND_REAL || kind == KIND_BOUNDED)
        x[j] = (kind == KIND_REAL ? given : sigmoid(given)) +
               exp(hold_logvar(noise_logvar[j]) / 2) * noise;
      else if (kind == KIND_GREY)
        x[j] = grey_draw(given, noise);
      else if (kind == KIND_BINARY)
        x[j] = noise < sigmoid(given);
      else
        x[j] = (REAL)draw_count((double)given + (double)shift[j], noise);
    }
  }
}
