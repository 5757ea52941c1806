// What the CUDA kernels of all subjects share. This file and one SUBJECT/cuda.cu behind it are
// compiled together, once per dtype (REAL = float or double); the other capitals come from
// launches.py. The kernels are twins of SUBJECT/reference.py: same names, results and side effects;
// the formulas are derived there.
//
// * Every block has BLOCK threads. Neighbouring threads take neighbouring columns, so that a warp
//   reads and writes whole lines of memory. In kernels over a matrix blockIdx.x is the row.
// * Sums have one fixed order and nothing is added atomically: every run has the same bits.
// * NAME_row_stride says how far it is from one row of the matrix NAME to the next, so NAME may be
//   columns of a wider matrix. All other arrays are contiguous. launches.py fills in the strides.
// * An array that the caller may leave out is null then.
// * counters, where not null, is what a captured step reads instead of arguments, which a replay
//   could not change: the number of the step, the place in the order of rows, and whether a loss
//   was not finite. From then on, nothing that lasts from step to step is written any more.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// exp, log1p, fabs and others of a float are float: CUDA C++ overloads them.

__device__ inline REAL sigmoid(REAL a) {
  const REAL e = exp(-fabs(a));
  return (a < 0 ? e : (REAL)1) / (1 + e);
}

__device__ inline REAL softplus(REAL a) { return (a > 0 ? a : (REAL)0) + log1p(exp(-fabs(a))); }

__device__ inline bool is_held(REAL logvar) { return fabs(logvar) > (REAL)LOGVAR_BOUND; }

__device__ inline REAL hold_logvar(REAL logvar) {  // NaN stays NaN
  const REAL bound = (REAL)LOGVAR_BOUND;
  return logvar < -bound ? -bound : logvar > bound ? bound : logvar;
}

// The block's row of a matrix, or null if there is none.
template <class T>
__device__ inline T *block_row(T *matrix, i64 row_stride) {
  return matrix ? matrix + blockIdx.x * row_stride : matrix;
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
