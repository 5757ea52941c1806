// CUDA twins of adversarial/reference.py.

extern "C" __global__ void join_columns(const REAL *left, i64 left_row_stride, const REAL *right,
                                        i64 right_row_stride, REAL *both, i64 both_row_stride,
                                        int first, int columns) {
  const int j = blockIdx.y * BLOCK + threadIdx.x;
  if (j >= columns) return;
  block_row(both, both_row_stride)[j] = j < first ? block_row(left, left_row_stride)[j]
                                                  : block_row(right, right_row_stride)[j - first];
}

// A thread takes a row.
extern "C" __global__ void adversarial_losses(const REAL *logits, i64 logits_row_stride,
                                              const REAL *judged, i64 judged_row_stride,
                                              REAL d_scale, REAL g_scale, REAL *d_loss,
                                              REAL *g_loss, REAL *dlogits, i64 dlogits_row_stride,
                                              REAL *djudged, i64 djudged_row_stride, i64 rows) {
  const i64 i = (i64)blockIdx.x * BLOCK + threadIdx.x;
  if (i >= rows) return;
  logits += i * logits_row_stride, judged += i * judged_row_stride;
  const REAL r = logits[0], f = logits[1], seen = judged[0];
  d_loss[i] = softplus(-r) + softplus(f);
  g_loss[i] = softplus(-seen);
  if (!dlogits) return;
  dlogits += i * dlogits_row_stride;
  dlogits[0] = -d_scale * sigmoid(-r);
  dlogits[1] = d_scale * sigmoid(f);
  djudged[i * djudged_row_stride] = -g_scale * sigmoid(-seen);
}
