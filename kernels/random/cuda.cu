// CUDA twins of random/reference.py. A thread takes four columns, which are four words of a draw.

struct Words {
  u32 word[4];
};

__device__ inline Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
  for (int round = 0; round < 10; round++) {
    const u64 product0 = (u64)0xD2511F53 * c0, product1 = (u64)0xCD9E8D57 * c2;
    c0 = (u32)(product1 >> 32) ^ c1 ^ k0;
    c1 = (u32)product1;
    c2 = (u32)(product0 >> 32) ^ c3 ^ k1;
    c3 = (u32)product0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

__device__ inline REAL uniform(u32 word) { return ((REAL)(word >> 9) + (REAL)0.5) / (REAL)8388608; }

// The thread's first column.
__device__ inline int first_of_four() { return 4 * (int)(blockIdx.y * BLOCK + threadIdx.x); }

// The words of that and the next three columns of the block's row.
__device__ inline Words draw_four(u32 key0, u32 key1, u32 stream, const i64 *counters, u32 step,
                                  u32 first_row) {
  const u32 row = first_row + blockIdx.x;
  return philox(blockIdx.y * BLOCK + threadIdx.x, row, step_now(counters, step), stream, key0,
                key1);
}

extern "C" __global__ void random_words(u32 key0, u32 key1, u32 stream, const i64 *counters,
                                        u32 step, u32 first_row, u32 *words, i64 words_row_stride,
                                        int columns) {
  const int first = first_of_four();
  if (first >= columns) return;
  const Words draw = draw_four(key0, key1, stream, counters, step, first_row);
  words = block_row(words, words_row_stride) + first;
  for (int j = 0; j < 4 && first + j < columns; j++) words[j] = draw.word[j];
}

extern "C" __global__ void random_uniform(u32 key0, u32 key1, u32 stream, const i64 *counters,
                                          u32 step, u32 first_row, REAL *u, i64 u_row_stride,
                                          int columns) {
  const int first = first_of_four();
  if (first >= columns) return;
  const Words draw = draw_four(key0, key1, stream, counters, step, first_row);
  u = block_row(u, u_row_stride) + first;
  for (int j = 0; j < 4 && first + j < columns; j++) u[j] = uniform(draw.word[j]);
}

extern "C" __global__ void random_normal(u32 key0, u32 key1, u32 stream, const i64 *counters,
                                         u32 step, u32 first_row, REAL *eps, i64 eps_row_stride,
                                         int columns) {
  const int first = first_of_four();
  if (first >= columns) return;
  const Words draw = draw_four(key0, key1, stream, counters, step, first_row);
  eps = block_row(eps, eps_row_stride) + first;
  for (int j = 0; j < 4 && first + j < columns; j += 2) {
    const REAL radius = sqrt(-2 * log(uniform(draw.word[j])));
    REAL sine, cosine;
    sincospi(2 * uniform(draw.word[j + 1]), &sine, &cosine);
    eps[j] = radius * cosine;
    if (first + j + 1 < columns) eps[j + 1] = radius * sine;
  }
}

extern "C" __global__ void random_binarize(REAL *x, i64 x_row_stride, u32 key0, u32 key1,
                                           u32 stream, const i64 *counters, u32 step, u32 first_row,
                                           int columns) {
  const int first = first_of_four();
  if (first >= columns) return;
  const Words draw = draw_four(key0, key1, stream, counters, step, first_row);
  x = block_row(x, x_row_stride) + first;
  for (int j = 0; j < 4 && first + j < columns; j++)
    x[j] = uniform(draw.word[j]) < x[j] ? (REAL)1 : (REAL)0;
}

extern "C" __global__ void threshold(REAL *x, i64 x_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  x = block_row(x, x_row_stride);
  x[j] = x[j] >= (REAL)0.5 ? (REAL)1 : (REAL)0;
}
