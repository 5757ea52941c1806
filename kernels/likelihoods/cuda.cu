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
