// CUDA twins of batch/reference.py, and the end of a captured step.

extern "C" __global__ void gather(const REAL *data, i64 data_row_stride, const i64 *rows,
                                  const i64 *counters, REAL *x, i64 x_row_stride, REAL *observed,
                                  i64 observed_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const i64 row = rows[blockIdx.x + (counters ? counters[POSITION] : 0)];
  const REAL value = data[row * data_row_stride + j];
  const bool known = value == value;  // NaN alone is not equal to itself
  if (observed) block_row(observed, observed_row_stride)[j] = known ? (REAL)1 : (REAL)0;
  block_row(x, x_row_stride)[j] = known || !observed ? value : (REAL)0;
}

// A block takes a row. groups, units, observed may be null.
extern "C" __global__ void encoder_input(const REAL *x, i64 x_row_stride, const REAL *observed,
                                         i64 observed_row_stride, const i64 *groups,
                                         const REAL *units, REAL *h, i64 h_row_stride, u32 n_groups,
                                         int columns) {
  x = block_row(x, x_row_stride), observed = block_row(observed, observed_row_stride);
  h = block_row(h, h_row_stride);
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    h[j] = !observed || observed[j] != 0 ? x[j] : (REAL)0;
    if (observed) h[columns + j] = observed[j];
  }
  __syncthreads();  // a group's columns need not be written by the thread that wrote them before
  for (u32 g = 0; g < n_groups; ++g) {
    if (groups[3 * g] != KIND_COUNT) continue;
    for (i64 j = groups[3 * g + 1] + threadIdx.x; j < groups[3 * g + 2]; j += BLOCK)
      if (!observed || observed[j] != 0) h[j] = log1p(h[j]) - units[2 * (i64)columns + j];
  }
}

// Nothing once a loss was not finite, as the target may be what lasts from step to step.
extern "C" __global__ void copy(const REAL *source, REAL *target, const i64 *counters, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at < size && !failed(counters)) target[at] = source[at];
}

extern "C" __global__ void repeat_rows(const REAL *rows, i64 rows_row_stride, REAL *repeated,
                                       i64 repeated_row_stride, int times, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  block_row(repeated, repeated_row_stride)[j] = rows[blockIdx.x / times * rows_row_stride + j];
}

extern "C" __global__ void scale_rows(const REAL *factors, REAL *rows, i64 rows_row_stride,
                                      int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j < columns) block_row(rows, rows_row_stride)[j] *= factors[blockIdx.x];
}

extern "C" __global__ void mean_of_draws(const REAL *values, REAL *mean, int draws, i64 size) {
  const i64 row = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (row >= size) return;
  REAL total = 0;
  for (int k = 0; k < draws; ++k) total += values[row * draws + k];
  mean[row] = total / draws;
}

extern "C" __global__ void all_finite(const REAL *values, i64 *counters, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at < size && !isfinite(values[at])) counters[FAILED] = 1;  // all that write write the same
}

// A block takes a term.
extern "C" __global__ void add_terms(const REAL *terms, i64 terms_row_stride, const i64 *counters,
                                     double *totals, int columns) {
  if (failed(counters)) return;
  terms = block_row(terms, terms_row_stride);
  double total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) total += terms[j];
  total = block_sum(total);
  if (threadIdx.x == 0) totals[blockIdx.x] += total;
}

// The end of a captured step on so many rows: no twin, as on the CPU the loop does this.
extern "C" __global__ void advance(i64 *counters, int rows) {
  if (threadIdx.x > 0 || failed(counters)) return;
  counters[STEP] += 1;
  counters[POSITION] += rows;
}
