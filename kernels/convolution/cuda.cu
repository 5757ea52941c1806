// CUDA twins of convolution/reference.py.

// A block takes a row of cols, and its threads the channels of all taps.
extern "C" __global__ void gather_taps(const REAL *h, i64 h_row_stride, const i64 *taps, REAL *cols,
                                       i64 cols_row_stride, int positions, int outputs, int n_taps,
                                       int channels) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= n_taps * channels) return;
  const i64 row = blockIdx.x / outputs, p = blockIdx.x % outputs;
  const i64 seen = taps[p * n_taps + j / channels];
  block_row(cols, cols_row_stride)[j] =
      seen < 0 ? (REAL)0 : h[(row * positions + seen) * h_row_stride + j % channels];
}

// A block takes a position of a row, and a thread a channel.
extern "C" __global__ void scatter_taps(const REAL *dcols, i64 dcols_row_stride, const i64 *inverse,
                                        REAL *dh, i64 dh_row_stride, int positions, int n_taps,
                                        int channels) {
  const int c = blockIdx.y * BLOCK + threadIdx.x;
  if (c >= channels) return;
  const i64 row = blockIdx.x / positions, q = blockIdx.x % positions;
  REAL total = block_row(dh, dh_row_stride)[c];
  for (int t = 0; t < n_taps; t++) {
    const i64 by = inverse[q * n_taps + t];
    if (by >= 0) total += dcols[(row * positions + by) * dcols_row_stride + t * channels + c];
  }
  block_row(dh, dh_row_stride)[c] = total;
}

extern "C" __global__ void gate(const REAL *a, i64 a_row_stride, REAL *y, i64 y_row_stride,
                                int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL *f = block_row(a, a_row_stride) + j;
  block_row(y, y_row_stride)[j] = tanh(*f) * sigmoid(f[columns]);
}

extern "C" __global__ void gate_backward(const REAL *dy, i64 dy_row_stride, const REAL *a,
                                         i64 a_row_stride, REAL *da, i64 da_row_stride,
                                         int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL *f = block_row(a, a_row_stride) + j, slope = block_row(dy, dy_row_stride)[j];
  const REAL t = tanh(*f), s = sigmoid(f[columns]);
  REAL *df = block_row(da, da_row_stride) + j;
  df[0] = slope * s * (1 - t * t);
  df[columns] = slope * t * s * sigmoid(-f[columns]);
}
