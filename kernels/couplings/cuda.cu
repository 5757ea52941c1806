// CUDA twins of couplings/reference.py.

extern "C" __global__ void dequantize(const REAL *x, i64 x_row_stride, const REAL *noise,
                                      i64 noise_row_stride, int levels, REAL *u, i64 u_row_stride,
                                      int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL level = floor(block_row(x, x_row_stride)[j] * (levels - 1) + (REAL)0.5);
  block_row(u, u_row_stride)[j] = (level + block_row(noise, noise_row_stride)[j]) / levels;
}

extern "C" __global__ void quantize(const REAL *u, i64 u_row_stride, int levels, REAL *x,
                                    i64 x_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL top = levels - 1, level = floor(block_row(u, u_row_stride)[j] * levels);
  block_row(x, x_row_stride)[j] = (level < 0 ? (REAL)0 : level > top ? top : level) / top;
}

extern "C" __global__ void split_columns(const REAL *x, i64 x_row_stride, REAL *even,
                                         i64 even_row_stride, REAL *odd, i64 odd_row_stride,
                                         int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  REAL *half = j % 2 ? block_row(odd, odd_row_stride) : block_row(even, even_row_stride);
  half[j / 2] = block_row(x, x_row_stride)[j];
}

extern "C" __global__ void merge_columns(const REAL *even, i64 even_row_stride, const REAL *odd,
                                         i64 odd_row_stride, REAL *x, i64 x_row_stride,
                                         int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL *half = j % 2 ? block_row(odd, odd_row_stride) : block_row(even, even_row_stride);
  block_row(x, x_row_stride)[j] = half[j / 2];
}

// s / LOG_SCALE_BOUND, within +-1.
__device__ inline REAL unit_scale(REAL raw) { return tanh(raw / (REAL)LOG_SCALE_BOUND); }

// A block takes a row. heads: raw | shift of an affine coupling, else the shift alone.
extern "C" __global__ void coupling(const REAL *x, i64 x_row_stride, const REAL *heads,
                                    i64 heads_row_stride, REAL *y, i64 y_row_stride, REAL *log_det,
                                    i64 log_det_row_stride, int affine, int columns) {
  x = block_row(x, x_row_stride), y = block_row(y, y_row_stride);
  const REAL *raw = block_row(heads, heads_row_stride), *shift = raw + (affine ? columns : 0);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const REAL s = affine ? (REAL)LOG_SCALE_BOUND * unit_scale(raw[j]) : (REAL)0;
    y[j] = x[j] * exp(s) + shift[j];
    total += s;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *block_row(log_det, log_det_row_stride) = total;
}

extern "C" __global__ void coupling_backward(const REAL *dy, i64 dy_row_stride, const REAL *x,
                                             i64 x_row_stride, const REAL *heads,
                                             i64 heads_row_stride, REAL scale, REAL *dx,
                                             i64 dx_row_stride, REAL *dheads,
                                             i64 dheads_row_stride, int affine, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL slope = block_row(dy, dy_row_stride)[j];
  REAL *draw = block_row(dheads, dheads_row_stride) + j, scaled = slope;
  if (affine) {
    const REAL t = unit_scale(block_row(heads, heads_row_stride)[j]);
    scaled *= exp((REAL)LOG_SCALE_BOUND * t);
    *draw = (scaled * block_row(x, x_row_stride)[j] - scale) * (1 - t * t);
  }
  draw[affine ? columns : 0] = slope;
  block_row(dx, dx_row_stride)[j] = scaled;
}

extern "C" __global__ void coupling_inverse(const REAL *y, i64 y_row_stride, const REAL *heads,
                                            i64 heads_row_stride, REAL *x, i64 x_row_stride,
                                            int affine, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL *raw = block_row(heads, heads_row_stride) + j;
  const REAL apart = block_row(y, y_row_stride)[j] - raw[affine ? columns : 0];
  const REAL scale = affine ? exp(-(REAL)LOG_SCALE_BOUND * unit_scale(*raw)) : (REAL)1;
  block_row(x, x_row_stride)[j] = apart * scale;
}

extern "C" __global__ void add(const REAL *part, i64 part_row_stride, REAL *total,
                               i64 total_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j < columns)
    block_row(total, total_row_stride)[j] += block_row(part, part_row_stride)[j];
}

// A block takes a row.
extern "C" __global__ void prior_nll(const REAL *y, i64 y_row_stride, const REAL *log_scale,
                                     const REAL *log_det, i64 log_det_row_stride, REAL log_volume,
                                     int prior, REAL scale, REAL *z, i64 z_row_stride, REAL *nll,
                                     REAL *dy, i64 dy_row_stride, REAL *dlog_scale,
                                     i64 dlog_scale_row_stride, int layers, int columns) {
  y = block_row(y, y_row_stride), z = block_row(z, z_row_stride);
  dy = block_row(dy, dy_row_stride), dlog_scale = block_row(dlog_scale, dlog_scale_row_stride);
  log_det = block_row(log_det, log_det_row_stride);
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const REAL s = hold_logvar(log_scale[j]), width = exp(s), code = y[j] * width;
    const REAL slope = scale * (prior == NORMAL ? code : tanh(code / 2));
    z[j] = code;
    total += (prior == NORMAL ? (code * code + (REAL)LOG_2PI) / 2
                              : fabs(code) + 2 * log1p(exp(-fabs(code)))) - s;
    if (!dy) continue;
    dy[j] = slope * width;
    dlog_scale[j] = is_held(log_scale[j]) ? (REAL)0 : slope * code - scale;
  }
  for (int l = threadIdx.x; l < layers; l += BLOCK) total -= log_det[l];
  total = block_sum(total);
  if (threadIdx.x == 0) nll[blockIdx.x] = total - log_volume;
}

extern "C" __global__ void scale_inverse(const REAL *z, i64 z_row_stride, const REAL *log_scale,
                                         REAL *y, i64 y_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL code = block_row(z, z_row_stride)[j];
  block_row(y, y_row_stride)[j] = code * exp(-hold_logvar(log_scale[j]));
}

extern "C" __global__ void logistic(const REAL *u, i64 u_row_stride, REAL *z, i64 z_row_stride,
                                    int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const REAL drawn = block_row(u, u_row_stride)[j];
  block_row(z, z_row_stride)[j] = log(drawn) - log1p(-drawn);
}
