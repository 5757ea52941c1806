// CUDA twins of recurrent/reference.py. A thread takes one unit of one row.

extern "C" __global__ void clear(REAL *x, i64 x_row_stride, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j < columns) block_row(x, x_row_stride)[j] = 0;
}

extern "C" __global__ void gru(int t, const REAL *recurrent, i64 recurrent_row_stride,
                               const REAL *bias, REAL *states, i64 states_row_stride, REAL *gates,
                               i64 gates_row_stride, int units) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= units) return;
  REAL *state = block_row(states, states_row_stride) + t * units + j;
  REAL *gate = block_row(gates, gates_row_stride) + 4 * t * units + j;
  const REAL *u = block_row(recurrent, recurrent_row_stride) + j;
  const REAL r = sigmoid(gate[units] + bias[units + j] + u[0]);
  const REAL z = sigmoid(gate[2 * units] + bias[2 * units + j] + u[units]);
  const REAL q = u[2 * units], n = tanh(gate[0] + bias[j] + r * q);
  gate[0] = n, gate[units] = r, gate[2 * units] = z, gate[3 * units] = q;
  state[units] = n + z * (state[0] - n);
}

extern "C" __global__ void gru_backward(int t, const REAL *states, i64 states_row_stride,
                                        const REAL *gates, i64 gates_row_stride, REAL *dstates,
                                        i64 dstates_row_stride, REAL *dgates,
                                        i64 dgates_row_stride, int units) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= units) return;
  const REAL *gate = block_row(gates, gates_row_stride) + 4 * t * units + j;
  const REAL n = gate[0], r = gate[units], z = gate[2 * units], q = gate[3 * units];
  const REAL h = block_row(states, states_row_stride)[t * units + j];
  REAL *dstate = block_row(dstates, dstates_row_stride) + t * units + j;
  REAL *dgate = block_row(dgates, dgates_row_stride) + 4 * t * units + j;
  const REAL dafter = dstate[units], dn = dafter * (1 - z) * (1 - n * n);
  dgate[0] = dn;
  dgate[units] = dn * q * r * (1 - r);
  dgate[2 * units] = dafter * (h - n) * z * (1 - z);
  dgate[3 * units] = dn * r;
  dstate[0] += dafter * z;
}
