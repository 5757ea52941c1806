// CUDA twins of reference.py: same names, results and side effects; the formulas are derived there.
// Compiled once per dtype (REAL = float or double); the other capitals come from launches.py too.
//
// * Every block has BLOCK threads. Neighbouring threads take neighbouring columns, so that reads and
//   writes of a warp are whole lines of memory. In kernels over a matrix blockIdx.x is the row.
// * Sums have one fixed order and nothing is added atomically: every run has the same bits.
// * Matrices are contiguous, but for those with a `down`: how far it is from one row to the next.
// * counters, where not null, is what a captured step reads instead of arguments, which a replay
//   could not change: the number of the step, the place in the order of rows, and whether a loss was
//   not finite. From then on, nothing that lasts from step to step is written any more.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// --- formulas -------------------------------------------------------------------------------------

__device__ inline float exp_(float a) { return expf(a); }
__device__ inline double exp_(double a) { return exp(a); }
__device__ inline float expm1_(float a) { return expm1f(a); }
__device__ inline double expm1_(double a) { return expm1(a); }
__device__ inline float log_(float a) { return logf(a); }
__device__ inline double log_(double a) { return log(a); }
__device__ inline float log1p_(float a) { return log1pf(a); }
__device__ inline double log1p_(double a) { return log1p(a); }
__device__ inline float tanh_(float a) { return tanhf(a); }
__device__ inline double tanh_(double a) { return tanh(a); }
__device__ inline float sqrt_(float a) { return sqrtf(a); }
__device__ inline double sqrt_(double a) { return sqrt(a); }
__device__ inline void turn(float a, float *sine, float *cosine) { sincospif(2 * a, sine, cosine); }
__device__ inline void turn(double a, double *sine, double *cosine) { sincospi(2 * a, sine, cosine); }

__device__ inline REAL magnitude(REAL a) { return a < 0 ? -a : a; }

__device__ inline bool finite_(REAL a) { return a - a == 0; }

__device__ inline REAL sigmoid(REAL a) {
  REAL e = exp_(-magnitude(a));
  return (a < 0 ? e : (REAL)1) / (1 + e);
}

__device__ inline REAL softplus(REAL a) { return (a > 0 ? a : (REAL)0) + log1p_(exp_(-magnitude(a))); }

__device__ inline bool is_held(REAL logvar) { return magnitude(logvar) > (REAL)LOGVAR_BOUND; }

__device__ inline REAL hold_logvar(REAL logvar) {  // NaN stays NaN
  const REAL bound = (REAL)LOGVAR_BOUND;
  return logvar < -bound ? -bound : logvar > bound ? bound : logvar;
}

__device__ inline REAL unless_negligible(REAL moment) {
  return magnitude(moment) < (REAL)NEGLIGIBLE ? (REAL)0 : moment;
}

// The sum over the block's threads, for thread 0, as a tree: its order depends on nothing.
template <class T>
__device__ inline T block_sum(T value) {
  __shared__ T part[BLOCK];
  part[threadIdx.x] = value;
  __syncthreads();
  for (u32 half = BLOCK / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    __syncthreads();
  }
  return part[0];  // thread 0 alone writes there, so the next sum may begin at once
}

__device__ inline bool failed(const i64 *counters) { return counters && counters[FAILED]; }

__device__ inline u32 step_now(const i64 *counters, u32 step) {
  return counters ? (u32)counters[STEP] + step : step;
}

// --- layers ---------------------------------------------------------------------------------------

// out (m, n) = a (m, depth) b (depth, n), whatever their strides; a block computes TILE x TILE.
extern "C" __global__ void matmul(const REAL *a, i64 a_down, i64 a_right, const REAL *b, i64 b_down,
                                  i64 b_right, REAL *out, i64 out_down, int m, int n, int depth) {
  __shared__ REAL left[TILE][TILE + 1], right[TILE][TILE + 1];  // + 1: no two rows in one bank
  const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
  const int i = blockIdx.x * TILE + y, j = blockIdx.y * TILE + x;
  REAL total = 0;
  for (int start = 0; start < depth; start += TILE) {
    left[y][x] = i < m && start + x < depth ? a[i * a_down + (start + x) * a_right] : (REAL)0;
    right[y][x] = start + y < depth && j < n ? b[(start + y) * b_down + j * b_right] : (REAL)0;
    __syncthreads();
    for (int k = 0; k < TILE; k++) total += left[y][k] * right[k][x];
    __syncthreads();
  }
  if (i < m && j < n) out[i * out_down + j] = total;
}

extern "C" __global__ void bias_activation(REAL *y, const REAL *bias, int activation, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const i64 at = (i64)blockIdx.x * columns + j;
  REAL a = y[at] + bias[j];
  if (activation == RELU) a = a < 0 ? (REAL)0 : a;  // NaN stays NaN
  if (activation == TANH) a = tanh_(a);
  if (activation == SIGMOID) a = sigmoid(a);
  if (activation == SOFTPLUS) a = softplus(a);
  y[at] = a;
}

extern "C" __global__ void activation_backward(REAL *dy, const REAL *y, int activation, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size) return;
  const REAL f = y[at];
  REAL da = dy[at];
  if (activation == RELU) da = f > 0 ? da : (REAL)0;
  if (activation == TANH) da *= 1 - f * f;
  if (activation == SIGMOID) da *= f * (1 - f);
  if (activation == SOFTPLUS) da *= -expm1_(-f);
  dy[at] = da;
}

// A block takes WARP columns; each of its warps every so many rows of them. Then the warps' sums.
extern "C" __global__ void sum_rows(const REAL *dy, i64 dy_down, int rows, REAL *dbias, int columns) {
  __shared__ REAL part[BLOCK];
  const int warp = threadIdx.x / WARP, warps = BLOCK / WARP;
  const int j = blockIdx.x * WARP + threadIdx.x % WARP;
  REAL total = 0;
  if (j < columns)
    for (int i = warp; i < rows; i += warps) total += dy[i * dy_down + j];
  part[threadIdx.x] = total;
  __syncthreads();
  if (warp > 0 || j >= columns) return;
  for (int other = 1; other < warps; other++) total += part[other * WARP + threadIdx.x];
  dbias[j] = total;
}

// --- the posterior q(z|x) -------------------------------------------------------------------------

extern "C" __global__ void sample_gaussian(const REAL *mu, i64 mu_down, const REAL *logvar,
                                           i64 logvar_down, const REAL *eps, REAL *z, REAL *kl,
                                           int columns) {
  const i64 i = blockIdx.x;
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const REAL mean = mu[i * mu_down + j], held = hold_logvar(logvar[i * logvar_down + j]);
    const REAL std = exp_(held / 2);
    z[i * columns + j] = mean + std * eps[i * columns + j];
    total += mean * mean + std * std - held - 1;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) kl[i] = total / 2;
}

extern "C" __global__ void sample_gaussian_backward(const REAL *dz, const REAL *mu, i64 mu_down,
                                                    const REAL *logvar, i64 logvar_down,
                                                    const REAL *eps, REAL kl_scale, REAL *dmu,
                                                    i64 dmu_down, REAL *dlogvar, i64 dlogvar_down,
                                                    int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const i64 i = blockIdx.x, at = i * columns + j;
  const REAL l = logvar[i * logvar_down + j], std = exp_(hold_logvar(l) / 2), upstream = dz[at];
  const REAL slope = (upstream * eps[at] * std + kl_scale * (std * std - 1)) / 2;
  dmu[i * dmu_down + j] = upstream + kl_scale * mu[i * mu_down + j];
  dlogvar[i * dlogvar_down + j] = is_held(l) ? (REAL)0 : slope;
}

// --- likelihoods p(x|z): a block takes a row --------------------------------------------------------

extern "C" __global__ void bernoulli_nll(const REAL *logits, const REAL *x, const u8 *mask,
                                         REAL scale, REAL *nll, REAL *dlogits, int columns) {
  REAL total = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const i64 at = (i64)blockIdx.x * columns + j;
    const bool observed = !mask || mask[at];
    const REAL logit = logits[at], target = observed ? x[at] : (REAL)0;
    total += observed ? softplus(logit) - target * logit : (REAL)0;
    dlogits[at] = observed ? scale * (sigmoid(logit) - target) : (REAL)0;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) nll[blockIdx.x] = total;
}

extern "C" __global__ void gaussian_nll(const REAL *mean, const REAL *noise_logvar, const REAL *x,
                                        const u8 *mask, REAL scale, REAL *nll, REAL *dmean,
                                        REAL *dnoise_logvar, int columns) {
  const REAL s = hold_logvar(noise_logvar[0]), precision = exp_(-s);
  REAL squares = 0, count = 0;
  for (int j = threadIdx.x; j < columns; j += BLOCK) {
    const i64 at = (i64)blockIdx.x * columns + j;
    const bool observed = !mask || mask[at];
    const REAL residual = observed ? x[at] - mean[at] : (REAL)0;
    squares += residual * residual;
    count += observed;
    dmean[at] = -scale * precision * residual;
  }
  squares = precision * block_sum(squares);
  count = block_sum(count);
  if (threadIdx.x > 0) return;
  nll[blockIdx.x] = (squares + count * ((REAL)LOG_2PI + s)) / 2;
  dnoise_logvar[blockIdx.x] = is_held(noise_logvar[0]) ? (REAL)0 : scale * (count - squares) / 2;
}

// --- random numbers: a thread takes four columns ----------------------------------------------------

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

// The block's row and the thread's four columns from `first` on; {0} if it has none.
#define DRAW(columns)                                                                          \
  const u32 block = blockIdx.y * BLOCK + threadIdx.x;                                          \
  const int first = 4 * (int)block, last = first + 4 < columns ? first + 4 : columns;          \
  if (first >= columns) return;                                                                \
  const i64 row = (i64)blockIdx.x * columns;                                                   \
  const Words draw = philox(block, first_row + blockIdx.x, step_now(counters, step), stream, key0, key1)

extern "C" __global__ void random_words(u32 key0, u32 key1, u32 stream, const i64 *counters, u32 step,
                                        u32 first_row, u32 *words, int columns) {
  DRAW(columns);
  for (int j = first; j < last; j++) words[row + j] = draw.word[j - first];
}

extern "C" __global__ void random_uniform(u32 key0, u32 key1, u32 stream, const i64 *counters,
                                          u32 step, u32 first_row, REAL *u, int columns) {
  DRAW(columns);
  for (int j = first; j < last; j++) u[row + j] = uniform(draw.word[j - first]);
}

extern "C" __global__ void random_normal(u32 key0, u32 key1, u32 stream, const i64 *counters,
                                         u32 step, u32 first_row, REAL *eps, int columns) {
  DRAW(columns);
  for (int j = first; j < last; j += 2) {
    REAL sine, cosine, radius = sqrt_(-2 * log_(uniform(draw.word[j - first])));
    turn(uniform(draw.word[j - first + 1]), &sine, &cosine);
    eps[row + j] = radius * cosine;
    if (j + 1 < last) eps[row + j + 1] = radius * sine;
  }
}

extern "C" __global__ void random_binarize(REAL *x, u32 key0, u32 key1, u32 stream,
                                           const i64 *counters, u32 step, u32 first_row, int columns) {
  DRAW(columns);
  for (int j = first; j < last; j++)
    x[row + j] = uniform(draw.word[j - first]) < x[row + j] ? (REAL)1 : (REAL)0;
}

extern "C" __global__ void threshold(REAL *x, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at < size) x[at] = x[at] >= (REAL)0.5 ? (REAL)1 : (REAL)0;
}

// --- optimisers: a thread takes a parameter ---------------------------------------------------------

extern "C" __global__ void sgd(REAL *theta, const REAL *gradient, REAL *velocity, const i64 *counters,
                               const double *rate, REAL learning_rate, REAL momentum,
                               REAL weight_decay, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  REAL g = gradient[at] + weight_decay * theta[at];
  if (momentum > 0) velocity[at] = g = unless_negligible(momentum * velocity[at] + g);
  theta[at] -= (rate ? (REAL)*rate : learning_rate) * g;
}

extern "C" __global__ void adagrad(REAL *theta, const REAL *gradient, REAL *square_sum,
                                   const i64 *counters, const double *rate, REAL learning_rate,
                                   REAL weight_decay, REAL epsilon, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  const REAL g = gradient[at] + weight_decay * theta[at], s = square_sum[at] + g * g;
  square_sum[at] = s;
  theta[at] -= (rate ? (REAL)*rate : learning_rate) * g / (sqrt_(s) + epsilon);
}

// log_beta = ln beta, rest = 1 - beta. 1 - beta^t = -expm1(t ln beta): no power in double precision,
// which many cards are slow at.
extern "C" __global__ void adam(REAL *theta, const REAL *gradient, REAL *first, REAL *second,
                                const i64 *counters, u32 step, const double *rate, REAL learning_rate,
                                REAL beta1, REAL rest1, REAL log_beta1, REAL beta2, REAL rest2,
                                REAL log_beta2, REAL epsilon, REAL weight_decay, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  const REAL t = (REAL)step_now(counters, step);
  const REAL scale = (rate ? (REAL)*rate : learning_rate) / -expm1_(t * log_beta1);
  const REAL g = gradient[at] + weight_decay * theta[at];
  const REAL m = unless_negligible(beta1 * first[at] + rest1 * g);
  const REAL v = unless_negligible(beta2 * second[at] + rest2 * (g * g));
  first[at] = m;
  second[at] = v;
  theta[at] -= scale * m / (sqrt_(v / -expm1_(t * log_beta2)) + epsilon);
}

// --- the batch --------------------------------------------------------------------------------------

extern "C" __global__ void gather(const REAL *data, const i64 *rows, const i64 *counters, REAL *x,
                                  int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  const i64 row = rows[blockIdx.x + (counters ? counters[POSITION] : 0)];
  x[(i64)blockIdx.x * columns + j] = data[row * columns + j];
}

extern "C" __global__ void all_finite(const REAL *nll, const REAL *kl, i64 *counters, i64 size) {
  const i64 i = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (i < size && !(finite_(nll[i]) && finite_(kl[i]))) counters[FAILED] = 1;  // all write the same
}

extern "C" __global__ void add_totals(const REAL *nll, const REAL *kl, const i64 *counters,
                                      double *totals, int size) {  // one block
  if (failed(counters)) return;
  double nlls = 0, kls = 0;
  for (int i = threadIdx.x; i < size; i += BLOCK) {
    nlls += nll[i];
    kls += kl[i];
  }
  nlls = block_sum(nlls);
  kls = block_sum(kls);
  if (threadIdx.x > 0) return;
  totals[0] += nlls;
  totals[1] += kls;
}

// The end of a captured step on so many rows: no twin, as on the CPU the loop does this.
extern "C" __global__ void advance(i64 *counters, int rows) {
  if (threadIdx.x > 0 || failed(counters)) return;
  counters[STEP] += 1;
  counters[POSITION] += rows;
}
