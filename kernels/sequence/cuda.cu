// CUDA twins of sequence/reference.py.
//
// Where x_d = 0 the hidden layer stays as it is, to the last bit, so it is computed anew only
// behind variables that are set.

// sum over hidden units of v_j h_j, for thread 0.
__device__ inline REAL block_dot(const REAL *v, const REAL *h, int hidden) {
  REAL total = 0;
  for (int j = threadIdx.x; j < hidden; j += BLOCK) total += v[j] * h[j];
  return block_sum(total);
}

// a += value w and h = sigmoid(a). Each thread reads and writes its own hidden units alone.
__device__ inline void add_variable(REAL value, const REAL *w, REAL *a, REAL *h, int hidden) {
  for (int j = threadIdx.x; j < hidden; j += BLOCK) {
    a[j] += value * w[j];
    h[j] = sigmoid(a[j]);
  }
}

// The bias of a row: its own one, where there is one for each, else the only one.
__device__ inline const REAL *own(const REAL *bias, i64 row_stride, int rows, int i) {
  return bias + (rows > 1 ? i * row_stride : 0);
}

__device__ inline void begin_hidden(const REAL *c, REAL *a, REAL *h, int hidden) {
  for (int j = threadIdx.x; j < hidden; j += BLOCK) {
    a[j] = c[j];
    h[j] = sigmoid(c[j]);
  }
}

// A block takes a row, and its threads the hidden units.
extern "C" __global__ void nade_logits(const REAL *x, i64 x_row_stride, const REAL *W,
                                       const REAL *c, i64 c_row_stride, int c_rows,
                                       const REAL *V, const REAL *b, i64 b_row_stride, int b_rows,
                                       REAL *a, i64 a_row_stride, REAL *h, i64 h_row_stride, REAL *logits,
                                       i64 logits_row_stride, int columns, int hidden) {
  x = block_row(x, x_row_stride), logits = block_row(logits, logits_row_stride);
  a = block_row(a, a_row_stride), h = block_row(h, h_row_stride);
  b = own(b, b_row_stride, b_rows, blockIdx.x);
  begin_hidden(own(c, c_row_stride, c_rows, blockIdx.x), a, h, hidden);
  for (int d = 0; d < columns; d++) {
    const REAL total = block_dot(V + (i64)d * hidden, h, hidden);
    if (threadIdx.x == 0) logits[d] = b[d] + total;
    if (x[d] != 0) add_variable(x[d], W + (i64)d * hidden, a, h, hidden);
  }
}

extern "C" __global__ void nade_sample(const REAL *u, i64 u_row_stride, const REAL *W,
                                       const REAL *c, i64 c_row_stride, int c_rows,
                                       const REAL *V, const REAL *b, i64 b_row_stride, int b_rows,
                                       REAL *a, i64 a_row_stride, REAL *h, i64 h_row_stride, REAL *x,
                                       i64 x_row_stride, int columns, int hidden) {
  u = block_row(u, u_row_stride), x = block_row(x, x_row_stride);
  a = block_row(a, a_row_stride), h = block_row(h, h_row_stride);
  b = own(b, b_row_stride, b_rows, blockIdx.x);
  begin_hidden(own(c, c_row_stride, c_rows, blockIdx.x), a, h, hidden);
  for (int d = 0; d < columns; d++) {
    const REAL total = block_dot(V + (i64)d * hidden, h, hidden);
    if (threadIdx.x == 0) x[d] = u[d] < sigmoid(b[d] + total) ? (REAL)1 : (REAL)0;
    __syncthreads();  // all threads see what thread 0 drew
    if (x[d] != 0) add_variable(1, W + (i64)d * hidden, a, h, hidden);
  }
}

// A block takes TILE hidden units for all rows, one row after the other; its TILE lines of threads
// take a segment of the variables each. Where nothing is added up over rows, which are then many,
// other blocks take other rows. Two waits a row: for a_d where each segment begins, and for the sum
// of da over each segment. Every entry of dW and dV belongs to one thread.
//
// dW_d = x_d times the sum of da behind d, taken as that of the segment and all that follow, less
// what there was up to d. So all goes forth, and nothing has to be kept for a way back. What this
// subtraction loses is at most an eps of the row's |da|; to walk back by a_d = a_(d+1) - x_d W_d
// would lose an eps of W, and with that any number of digits of a smaller a_d.
extern "C" __global__ void nade_backward(const REAL *x, i64 x_row_stride, const REAL *dlogits,
                                         i64 dlogits_row_stride, const REAL *W, const REAL *c,
                                         i64 c_row_stride, int c_rows, const REAL *V, int first,
                                         int last, REAL *dW, REAL *dc, i64 dc_row_stride,
                                         int dc_rows, REAL *dV, int rows, int columns, int hidden,
                                         int lines) {
  __shared__ REAL added[TILE][TILE], slopes[TILE][TILE];  // of each segment and unit
  const int unit = threadIdx.x % TILE, segment = threadIdx.x / TILE;
  const int j = first + blockIdx.x * TILE + unit;
  const int size = (columns + TILE - 1) / TILE, begin = segment * size;
  int end = begin + size < columns ? begin + size : columns;
  if (j >= last) end = begin;  // no unit: nothing but to wait with the others
  for (int d = begin; d < end && dW; d++) dW[(i64)d * hidden + j] = dV[(i64)d * hidden + j] = 0;
  REAL dbias = 0;
  x += blockIdx.y * x_row_stride, dlogits += blockIdx.y * dlogits_row_stride;
  for (int i = blockIdx.y; i < rows; i += lines) {
    REAL sum = 0;
    for (int d = begin; d < end; d++)
      if (x[d] != 0) sum += x[d] * W[(i64)d * hidden + j];
    added[segment][unit] = sum;
    __syncthreads();
    REAL a = j < last ? own(c, c_row_stride, c_rows, i)[j] : (REAL)0;
    for (int before = 0; before < segment; before++) a += added[before][unit];
    REAL h = sigmoid(a), slope = 0;  // slope: the sum of da from the segment's begin to d
    for (int d = begin; d < end; d++) {
      const i64 at = (i64)d * hidden + j;
      if (dW) dV[at] += dlogits[d] * h;
      slope += dlogits[d] * V[at] * h * (1 - h);
      if (x[d] == 0) continue;
      if (dW) dW[at] -= x[d] * slope;
      a += x[d] * W[at];
      h = sigmoid(a);
    }
    slopes[segment][unit] = slope;
    __syncthreads();
    REAL total = 0;
    for (int here = segment; here < TILE; here++) total += slopes[here][unit];
    for (int d = begin; d < end && dW; d++)
      if (x[d] != 0) dW[(i64)d * hidden + j] += x[d] * total;
    dbias += total;
    if (segment == 0 && j < last && dc_rows > 1) dc[i * dc_row_stride + j] = total;
    x += lines * x_row_stride, dlogits += lines * dlogits_row_stride;
  }
  if (segment == 0 && j < last && dc_rows == 1) dc[j] = dbias;
}

// The largest of n logits, and the sum of exp of how far they are below it.
struct Sum {
  REAL top, total;
};

__device__ inline Sum sum_of(const REAL *row, int n) {
  REAL top = row[0], total = 0;
  for (int c = 1; c < n; ++c) top = row[c] > top ? row[c] : top;
  for (int c = 0; c < n; ++c) total += exp(row[c] - top);
  return {top, total};
}

// A block takes a row, and its threads the variables. dlogits may be null, or logits.
extern "C" __global__ void levels_nll(const REAL *logits, i64 logits_row_stride, const REAL *x,
                                      i64 x_row_stride, int levels, REAL scale, REAL *nll,
                                      REAL *dlogits, i64 dlogits_row_stride, int columns) {
  logits = block_row(logits, logits_row_stride), x = block_row(x, x_row_stride);
  dlogits = block_row(dlogits, dlogits_row_stride);
  REAL cost = 0;
  for (int d = threadIdx.x; d < columns; d += BLOCK) {
    const REAL *row = logits + (i64)d * levels;
    const int k = (int)(x[d] * (levels - 1) + (REAL)0.5);
    const Sum of = sum_of(row, levels);
    cost += of.top + log(of.total) - row[k];
    if (!dlogits) continue;
    REAL *target = dlogits + (i64)d * levels;
    for (int c = 0; c < levels; ++c)
      target[c] = scale * (exp(row[c] - of.top) / of.total - (c == k ? (REAL)1 : (REAL)0));
  }
  cost = block_sum(cost);
  if (threadIdx.x == 0) nll[blockIdx.x] = cost;
}

extern "C" __global__ void levels_draw(const REAL *logits, i64 logits_row_stride, const REAL *u,
                                       i64 u_row_stride, REAL *x, i64 x_row_stride, int rows,
                                       int n) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= rows) return;
  const REAL *row = logits + i * logits_row_stride, noise = u[i * u_row_stride];
  const Sum of = sum_of(row, n);
  REAL below = 0;
  int drawn = 0;
  for (int c = 0; c < n - 1; ++c) {
    below += exp(row[c] - of.top) / of.total;
    drawn += below <= noise;
  }
  x[i * x_row_stride] = (REAL)drawn / (n - 1);
}

// first: where the slot of this position begins; full: whether it holds an earlier position.
extern "C" __global__ void queue_taps(const REAL *h, i64 h_row_stride, REAL *queue,
                                      i64 queue_row_stride, int first, int full, REAL *taps,
                                      i64 taps_row_stride, int columns) {
  const int c = blockIdx.y * BLOCK + threadIdx.x;
  if (c >= columns) return;
  const REAL value = block_row(h, h_row_stride)[c];
  REAL *slot = block_row(queue, queue_row_stride) + first + c;
  taps = block_row(taps, taps_row_stride);
  taps[c] = full ? *slot : (REAL)0;
  taps[columns + c] = value;
  *slot = value;
}
