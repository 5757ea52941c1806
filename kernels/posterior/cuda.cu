// CUDA twins of posterior/reference.py. Row r of what belongs to draws is of row r / draws of mu.

__device__ inline REAL latent_kl(REAL mu, REAL logvar) {
  const REAL held = hold_logvar(logvar), std = exp(held / 2);
  return (mu * mu + std * std - held - 1) / 2;
}

extern "C" __global__ void sample_gaussian(const REAL *mu, i64 mu_row_stride, const REAL *logvar,
                                           i64 logvar_row_stride, const REAL *lower,
                                           i64 lower_row_stride, const REAL *eps,
                                           i64 eps_row_stride, REAL *z, i64 z_row_stride, int draws,
                                           int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const i64 row = blockIdx.x / draws;
  eps = block_row(eps, eps_row_stride);
  const REAL std = exp(hold_logvar(logvar[row * logvar_row_stride + j]) / 2);
  REAL value = mu[row * mu_row_stride + j] + std * eps[j];
  if (lower) {
    const REAL *below = lower + row * lower_row_stride + (i64)j * (j - 1) / 2;
    for (int c = 0; c < j; ++c) value += below[c] * eps[c];
  }
  block_row(z, z_row_stride)[j] = value;
}

extern "C" __global__ void gaussian_kl(const REAL *mu, i64 mu_row_stride, const REAL *logvar,
                                       i64 logvar_row_stride, const REAL *lower,
                                       i64 lower_row_stride, REAL free_bits, REAL *kl, REAL *slack,
                                       int columns) {
  mu = block_row(mu, mu_row_stride), logvar = block_row(logvar, logvar_row_stride);
  lower = block_row(lower, lower_row_stride);
  REAL total = 0, spare = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const REAL per_latent = latent_kl(mu[j], logvar[j]);
    total += per_latent;
    if (per_latent < free_bits) spare += free_bits - per_latent;
    if (lower)
      for (int c = 0; c < j; ++c) {
        const REAL entry = lower[(i64)j * (j - 1) / 2 + c];
        total += entry * entry / 2;
      }
  }
  total = block_sum(total);
  if (threadIdx.x == 0) kl[blockIdx.x] = total;
  if (!slack) return;
  spare = block_sum(spare);
  if (threadIdx.x == 0) slack[blockIdx.x] = spare;
}

// Thread j has latent j: its mean, its variance and its row of L.
extern "C" __global__ void sample_gaussian_backward(
    const REAL *dz, i64 dz_row_stride, const REAL *mu, i64 mu_row_stride, const REAL *logvar,
    i64 logvar_row_stride, const REAL *lower, i64 lower_row_stride, const REAL *eps,
    i64 eps_row_stride, REAL prior_scale, REAL entropy_scale, REAL free_bits, REAL *dmu,
    i64 dmu_row_stride, REAL *dlogvar, i64 dlogvar_row_stride, REAL *dlower, i64 dlower_row_stride,
    int draws, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  dz += (i64)blockIdx.x * draws * dz_row_stride, eps += (i64)blockIdx.x * draws * eps_row_stride;
  const REAL mean = block_row(mu, mu_row_stride)[j], l = block_row(logvar, logvar_row_stride)[j];
  REAL sum = 0, pull = 0;
  for (int k = 0; k < draws; ++k) {
    sum += dz[k * dz_row_stride + j];
    pull += dz[k * dz_row_stride + j] * eps[k * eps_row_stride + j];
  }
  if (lower) {
    const i64 at = (i64)j * (j - 1) / 2;
    for (int c = 0; c < j; ++c) {
      REAL slope = prior_scale * block_row(lower, lower_row_stride)[at + c];
      for (int k = 0; k < draws; ++k)
        slope += dz[k * dz_row_stride + j] * eps[k * eps_row_stride + c];
      block_row(dlower, dlower_row_stride)[at + c] = slope;
    }
  }
  const REAL std = exp(hold_logvar(l) / 2);
  if (latent_kl(mean, l) < free_bits) prior_scale = entropy_scale = 0;
  const REAL slope = (pull * std + (prior_scale * std * std - entropy_scale)) / 2;
  block_row(dmu, dmu_row_stride)[j] = sum + prior_scale * mean;
  block_row(dlogvar, dlogvar_row_stride)[j] = is_held(l) ? (REAL)0 : slope;
}

extern "C" __global__ void log_importance_weights(const REAL *logvar, i64 logvar_row_stride,
                                                  const REAL *eps, i64 eps_row_stride,
                                                  const REAL *z, i64 z_row_stride, const REAL *nll,
                                                  REAL *log_w, int draws, int columns) {
  logvar += (i64)(blockIdx.x / draws) * logvar_row_stride;
  eps = block_row(eps, eps_row_stride), z = block_row(z, z_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK)
    total += eps[j] * eps[j] + hold_logvar(logvar[j]) - z[j] * z[j];
  total = block_sum(total);
  if (threadIdx.x == 0) log_w[blockIdx.x] = total / 2 - nll[blockIdx.x];
}

// A block takes a row of the batch, thread 0 what all of its draws have in common.
extern "C" __global__ void importance_bound(const REAL *log_w, const REAL *nll, REAL *weights,
                                            REAL *row_nll, REAL *row_kl, int draws) {
  if (threadIdx.x > 0) return;
  const i64 first = (i64)blockIdx.x * draws;
  REAL largest = log_w[first], total = 0, mean = 0;
  for (int k = 1; k < draws; ++k)
    if (log_w[first + k] > largest) largest = log_w[first + k];
  for (int k = 0; k < draws; ++k) total += weights[first + k] = exp(log_w[first + k] - largest);
  for (int k = 0; k < draws; ++k)
    mean += (weights[first + k] /= total) * nll[first + k];
  row_nll[blockIdx.x] = mean;
  row_kl[blockIdx.x] = -(largest + log(total / draws)) - mean;
}

// A thread takes a draw: what is known of its score leaves the rows above.
extern "C" __global__ void posterior_score(const REAL *logvar, i64 logvar_row_stride,
                                           const REAL *lower, i64 lower_row_stride,
                                           const REAL *eps, i64 eps_row_stride, REAL *score,
                                           i64 score_row_stride, int draws, int rows, int columns) {
  const int draw = blockIdx.x * BLOCK + threadIdx.x;
  if (draw >= rows) return;
  const i64 row = draw / draws;
  logvar += row * logvar_row_stride, eps += draw * eps_row_stride, score += draw * score_row_stride;
  for (int j = 0; j < columns; ++j) score[j] = eps[j];
  for (int j = columns - 1; j >= 0; --j) {
    score[j] /= exp(hold_logvar(logvar[j]) / 2);
    const i64 at = row * lower_row_stride + (i64)j * (j - 1) / 2;
    for (int c = 0; lower && c < j; ++c) score[c] -= lower[at + c] * score[j];
  }
}

extern "C" __global__ void importance_backward(REAL *dz, i64 dz_row_stride, const REAL *z,
                                               i64 z_row_stride, const REAL *score,
                                               i64 score_row_stride, const REAL *weights,
                                               REAL scale, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL w = weights[blockIdx.x], prior = block_row(z, z_row_stride)[j];
  REAL *slope = block_row(dz, dz_row_stride) + j;
  if (score)
    *slope = w * (*slope + scale * w * (prior - block_row(score, score_row_stride)[j]));
  else
    *slope += scale * w * prior;
}
