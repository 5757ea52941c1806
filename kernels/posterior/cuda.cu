// CUDA twins of posterior/reference.py.

extern "C" __global__ void sample_gaussian(const REAL *mu, i64 mu_row_stride, const REAL *logvar,
                                           i64 logvar_row_stride, const REAL *eps,
                                           i64 eps_row_stride, REAL *z, i64 z_row_stride, REAL *kl,
                                           int columns) {
  mu = block_row(mu, mu_row_stride), logvar = block_row(logvar, logvar_row_stride);
  eps = block_row(eps, eps_row_stride), z = block_row(z, z_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const REAL mean = mu[j], held = hold_logvar(logvar[j]);
    const REAL std = exp(held / 2);
    z[j] = mean + std * eps[j];
    total += mean * mean + std * std - held - 1;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) kl[blockIdx.x] = total / 2;
}

extern "C" __global__ void sample_gaussian_backward(
    const REAL *dz, i64 dz_row_stride, const REAL *mu, i64 mu_row_stride, const REAL *logvar,
    i64 logvar_row_stride, const REAL *eps, i64 eps_row_stride, REAL kl_scale, REAL *dmu,
    i64 dmu_row_stride, REAL *dlogvar, i64 dlogvar_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL upstream = block_row(dz, dz_row_stride)[j], noise = block_row(eps, eps_row_stride)[j];
  const REAL mean = block_row(mu, mu_row_stride)[j], l = block_row(logvar, logvar_row_stride)[j];
  const REAL std = exp(hold_logvar(l) / 2);
  const REAL slope = (upstream * noise * std + kl_scale * (std * std - 1)) / 2;
  block_row(dmu, dmu_row_stride)[j] = upstream + kl_scale * mean;
  block_row(dlogvar, dlogvar_row_stride)[j] = is_held(l) ? (REAL)0 : slope;
}

extern "C" __global__ void log_importance_weights(const REAL *logvar, i64 logvar_row_stride,
                                                  const REAL *eps, i64 eps_row_stride,
                                                  const REAL *z, i64 z_row_stride, const REAL *nll,
                                                  REAL *log_w, int columns) {
  logvar = block_row(logvar, logvar_row_stride);
  eps = block_row(eps, eps_row_stride), z = block_row(z, z_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK)
    total += eps[j] * eps[j] + hold_logvar(logvar[j]) - z[j] * z[j];
  total = block_sum(total);
  if (threadIdx.x == 0) log_w[blockIdx.x] = total / 2 - nll[blockIdx.x];
}
