// CUDA twins of chains/reference.py.

extern "C" __global__ void leapfrog_momentum(REAL *v, i64 v_row_stride, const REAL *z,
                                             i64 z_row_stride, const REAL *dnll,
                                             i64 dnll_row_stride, REAL beta, const REAL *size,
                                             REAL fraction, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL place = block_row(z, z_row_stride)[j], slope = block_row(dnll, dnll_row_stride)[j];
  block_row(v, v_row_stride)[j] -= fraction * size[blockIdx.x] * (place + beta * slope);
}

extern "C" __global__ void leapfrog_position(REAL *z, i64 z_row_stride, const REAL *v,
                                             i64 v_row_stride, const REAL *size, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  block_row(z, z_row_stride)[j] += size[blockIdx.x] * block_row(v, v_row_stride)[j];
}

extern "C" __global__ void hamiltonian(const REAL *z, i64 z_row_stride, const REAL *v,
                                       i64 v_row_stride, const REAL *nll, REAL beta, REAL *energy,
                                       int columns) {
  z = block_row(z, z_row_stride), v = block_row(v, v_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) total += z[j] * z[j] + v[j] * v[j];
  total = block_sum(total);
  if (threadIdx.x == 0) energy[blockIdx.x] = total / 2 + beta * nll[blockIdx.x];
}

extern "C" __global__ void metropolis(const REAL *before, const REAL *after, const REAL *u,
                                      const REAL *old_z, i64 old_z_row_stride,
                                      const REAL *old_nll, const REAL *old_dnll,
                                      i64 old_dnll_row_stride, REAL *z, i64 z_row_stride,
                                      REAL *nll, REAL *dnll, i64 dnll_row_stride, REAL *accepted,
                                      int columns) {
  const int i = blockIdx.x;
  const bool accept = log(u[i]) < before[i] - after[i];
  if (threadIdx.x == 0) accepted[i] = accept;
  if (accept) return;
  old_z = block_row(old_z, old_z_row_stride), z = block_row(z, z_row_stride);
  old_dnll = block_row(old_dnll, old_dnll_row_stride), dnll = block_row(dnll, dnll_row_stride);
  for (int j = threadIdx.x; j < columns; j += BLOCK) z[j] = old_z[j], dnll[j] = old_dnll[j];
  if (threadIdx.x == 0) nll[i] = old_nll[i];
}
