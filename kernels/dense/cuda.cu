// CUDA twins of dense/reference.py.

// out (m, n) = a (m, depth) b (depth, n), whatever their strides; a block computes TILE x TILE.
extern "C" __global__ void matmul(const REAL *a, i64 a_row_stride, i64 a_column_stride,
                                  const REAL *b, i64 b_row_stride, i64 b_column_stride, REAL *out,
                                  i64 out_row_stride, int m, int n, int depth) {
  __shared__ REAL left[TILE][TILE + 1], right[TILE][TILE + 1];  // + 1: no two rows in one bank
  const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
  const int i = blockIdx.x * TILE + y, j = blockIdx.y * TILE + x;
  REAL total = 0;
  for (int start = 0; start < depth; start += TILE) {
    const int column = start + x, row = start + y;
    left[y][x] = i < m && column < depth ? a[i * a_row_stride + column * a_column_stride] : (REAL)0;
    right[y][x] = row < depth && j < n ? b[row * b_row_stride + j * b_column_stride] : (REAL)0;
    __syncthreads();
    for (int k = 0; k < TILE; k++) total += left[y][k] * right[k][x];
    __syncthreads();
  }
  if (i < m && j < n) out[i * out_row_stride + j] = total;
}

extern "C" __global__ void bias_activation(REAL *y, i64 y_row_stride, const REAL *bias,
                                           int activation, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  y = block_row(y, y_row_stride);
  REAL a = y[j] + bias[j];
  if (activation == RELU) a = a < 0 ? (REAL)0 : a;  // NaN stays NaN
  if (activation == TANH) a = tanh(a);
  if (activation == SIGMOID) a = sigmoid(a);
  if (activation == SOFTPLUS) a = softplus(a);
  y[j] = a;
}

extern "C" __global__ void activation_backward(REAL *dy, i64 dy_row_stride, const REAL *y,
                                               i64 y_row_stride, int activation, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  dy = block_row(dy, dy_row_stride);
  const REAL f = block_row(y, y_row_stride)[j];
  REAL da = dy[j];
  if (activation == RELU) da = f > 0 ? da : (REAL)0;
  if (activation == TANH) da *= 1 - f * f;
  if (activation == SIGMOID) da *= f * (1 - f);
  if (activation == SOFTPLUS) da *= -expm1(-f);
  dy[j] = da;
}

// A block takes WARP columns; each of its warps every so many rows of them. Then the warps' sums.
extern "C" __global__ void sum_rows(const REAL *dy, i64 dy_row_stride, int rows, REAL *dbias,
                                    int columns) {
  __shared__ REAL part[BLOCK];
  const int warp = threadIdx.x / WARP, warps = BLOCK / WARP;
  const int j = blockIdx.x * WARP + threadIdx.x % WARP;
  REAL total = 0;
  if (j < columns)
    for (int i = warp; i < rows; i += warps) total += dy[i * dy_row_stride + j];
  part[threadIdx.x] = total;
  __syncthreads();
  if (warp > 0 || j >= columns) return;
  for (int other = 1; other < warps; other++) total += part[other * WARP + threadIdx.x];
  dbias[j] = total;
}
