// CUDA twins of optimizers/reference.py. A thread takes a parameter.

__device__ inline REAL unless_negligible(REAL moment) {
  return fabs(moment) < (REAL)NEGLIGIBLE ? (REAL)0 : moment;
}

// The learning rate; of a captured step learning_rate is how many times that on the device.
__device__ inline REAL rate_now(const double *rate, REAL learning_rate) {
  return rate ? (REAL)*rate * learning_rate : learning_rate;
}

extern "C" __global__ void sgd(REAL *theta, const REAL *gradient, REAL *velocity,
                               const i64 *counters, const double *rate, REAL learning_rate,
                               REAL momentum, REAL weight_decay, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  REAL g = gradient[at] + weight_decay * theta[at];
  if (momentum > 0) velocity[at] = g = unless_negligible(momentum * velocity[at] + g);
  theta[at] -= rate_now(rate, learning_rate) * g;
}

extern "C" __global__ void adagrad(REAL *theta, const REAL *gradient, REAL *square_sum,
                                   const i64 *counters, const double *rate, REAL learning_rate,
                                   REAL weight_decay, REAL epsilon, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  const REAL g = gradient[at] + weight_decay * theta[at], s = square_sum[at] + g * g;
  square_sum[at] = s;
  theta[at] -= rate_now(rate, learning_rate) * g / (sqrt(s) + epsilon);
}

// log_beta = ln beta, rest = 1 - beta. 1 - beta^t = -expm1(t ln beta): no power in double
// precision, which many cards are slow at.
extern "C" __global__ void adam(REAL *theta, const REAL *gradient, REAL *first, REAL *second,
                                const i64 *counters, u32 step, const double *rate,
                                REAL learning_rate, REAL beta1, REAL rest1, REAL log_beta1,
                                REAL beta2, REAL rest2, REAL log_beta2, REAL epsilon,
                                REAL weight_decay, i64 size) {
  const i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (at >= size || failed(counters)) return;
  const REAL t = (REAL)step_now(counters, step);
  const REAL scale = rate_now(rate, learning_rate) / -expm1(t * log_beta1);
  const REAL g = gradient[at] + weight_decay * theta[at];
  const REAL m = unless_negligible(beta1 * first[at] + rest1 * g);
  const REAL v = unless_negligible(beta2 * second[at] + rest2 * (g * g));
  first[at] = m;
  second[at] = v;
  theta[at] -= scale * m / (sqrt(v / -expm1(t * log_beta2)) + epsilon);
}
