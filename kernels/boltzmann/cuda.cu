// CUDA twins of boltzmann/reference.py. A block takes a row.

extern "C" __global__ void free_energy(const REAL *v, i64 v_row_stride, const REAL *field,
                                       i64 field_row_stride, const REAL *a, const REAL *c,
                                       REAL scale, REAL *energy, REAL *da, i64 da_row_stride,
                                       REAL *dfield, i64 dfield_row_stride, int visible,
                                       int hidden) {
  v = block_row(v, v_row_stride), field = block_row(field, field_row_stride);
  da = block_row(da, da_row_stride), dfield = block_row(dfield, dfield_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < visible; j += BLOCK) {
    total += a[j] * v[j];
    if (da) da[j] = -scale * v[j];
  }
  for (int j = threadIdx.x; j < hidden; j += BLOCK) {
    const REAL signal = field[j] + c[j];
    total += softplus(signal);
    if (da) dfield[j] = -scale * sigmoid(signal);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) energy[blockIdx.x] = -total;
}

extern "C" __global__ void pseudo_nll(const REAL *x, i64 x_row_stride, const REAL *u,
                                      i64 u_row_stride, const REAL *field, i64 field_row_stride,
                                      const REAL *W, i64 W_row_stride, const REAL *a,
                                      const REAL *c, REAL *nll, int visible, int hidden) {
  x = block_row(x, x_row_stride), field = block_row(field, field_row_stride);
  const int drawn = (int)(*block_row(u, u_row_stride) * visible);
  const int d = drawn < visible ? drawn : visible - 1;
  const REAL t = 1 - 2 * x[d];
  W += d * W_row_stride;
  REAL total = 0;
  for (int j = threadIdx.x; j < hidden; j += BLOCK) {
    const REAL signal = field[j] + c[j];
    total += softplus(signal + t * W[j]) - softplus(signal);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) nll[blockIdx.x] = visible * softplus(total + a[d] * t);
}

extern "C" __global__ void anneal_energy(const REAL *v, i64 v_row_stride, const REAL *field,
                                         i64 field_row_stride, const REAL *base, const REAL *a,
                                         const REAL *c, REAL before, REAL after, REAL *gain,
                                         int visible, int hidden) {
  v = block_row(v, v_row_stride), field = block_row(field, field_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < visible; j += BLOCK)
    total += (after - before) * (a[j] - base[j]) * v[j];
  for (int j = threadIdx.x; j < hidden; j += BLOCK) {
    const REAL signal = field[j] + c[j];
    total += softplus(after * signal) - softplus(before * signal);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) gain[blockIdx.x] = total;
}
