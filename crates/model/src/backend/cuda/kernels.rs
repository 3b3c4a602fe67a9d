//! CUDA C of the kernels, compiled at run time.
//!
//! One thread per value, per column or per row; sums run in a fixed order, but for the gradient of
//! embeddings, whose rows meet by chance. No headers are needed.

/// Names of all kernels.
pub(super) const NAMES: &[&str] = &[
    "copy_columns",
    "take_columns",
    "gather",
    "gather_add",
    "scatter_add",
    "add_bias",
    "column_sum",
    "relu",
    "relu_back",
    "dropout",
    "norm",
    "norm_back",
    "norm_back_parameters",
    "add",
    "gemm_plain",
    "loss",
    "sum_rows",
    "sum_squares",
    "adamw",
    "to_bf16",
    "from_bf16",
    "to_f16",
    "from_f16",
];

/// Partial sums that `sum_squares` and `sum_rows` leave to the host.
pub(super) const PARTIAL_SUMS: usize = 256;

pub(super) const SOURCE: &str = r#"
#define AT (blockIdx.x * blockDim.x + threadIdx.x)
typedef unsigned int u32;
typedef unsigned long long u64;

extern "C" __global__ void copy_columns(float* to, const float* from, int rows, int width, int stride, int first) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  to[(i / width) * stride + first + i % width] = from[i];
}
extern "C" __global__ void take_columns(float* to, const float* from, int rows, int width, int stride, int first) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  to[i] = from[(i / width) * stride + first + i % width];
}
extern "C" __global__ void gather(float* to, const float* table, const u32* codes, int rows, int width, int stride, int first, int tables, int position) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  u32 row = i / width, unit = i % width;
  to[row * stride + first + unit] = table[codes[row * tables + position] * width + unit];
}
extern "C" __global__ void gather_add(float* to, const float* table, const u32* codes, int rows, int width, int tables, int position) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  u32 row = i / width, unit = i % width;
  to[i] += table[codes[row * tables + position] * width + unit];
}
extern "C" __global__ void scatter_add(float* table, const float* from, const u32* codes, int rows, int width, int tables, int position) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  u32 row = i / width, unit = i % width;
  atomicAdd(&table[codes[row * tables + position] * width + unit], from[i]);
}
extern "C" __global__ void add_bias(float* x, const float* bias, int rows, int width) {
  u32 i = AT; if (i >= (u32)rows * width) return;
  x[i] += bias[i % width];
}
extern "C" __global__ void column_sum(float* to, const float* x, int rows, int width) {
  u32 column = AT; if (column >= (u32)width) return;
  float sum = 0.0f;
  for (int row = 0; row < rows; row++) sum += x[(u64)row * width + column];
  to[column] = sum;
}
extern "C" __global__ void relu(float* to, const float* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  float v = x[i]; to[i] = v < 0.0f ? 0.0f : v;
}
extern "C" __global__ void relu_back(float* dx, const float* y, const float* dy, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  dx[i] = y[i] > 0.0f ? dy[i] : (y[i] == y[i] ? 0.0f : y[i]);
}

__device__ u32 philox_word(u64 position, u32 index, u32 purpose, u64 key) {
  u64 block = position / 4;
  u32 c[4] = {(u32)block, (u32)(block >> 32), index, purpose};
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
  for (int round = 0; round < 10; round++) {
    if (round > 0) { k0 += 0x9E3779B9u; k1 += 0xBB67AE85u; }
    u64 a = (u64)0xD2511F53u * c[0], b = (u64)0xCD9E8D57u * c[2];
    u32 n0 = (u32)(b >> 32) ^ c[1] ^ k0, n1 = (u32)b, n2 = (u32)(a >> 32) ^ c[3] ^ k1, n3 = (u32)a;
    c[0] = n0; c[1] = n1; c[2] = n2; c[3] = n3;
  }
  return c[position % 4];
}
extern "C" __global__ void dropout(float* to, const float* x, int n, u64 first, u64 key, u32 purpose, u32 step, float rate, float kept) {
  u32 i = AT; if (i >= (u32)n) return;
  float uniform = (float)(philox_word(first + i, step, purpose, key) >> 8) / 16777216.0f;
  to[i] = uniform < rate ? 0.0f : x[i] * kept;
}
extern "C" __global__ void norm(float* to, float* means, float* roots, const float* x, const float* gain, const float* shift, int rows, int width, float epsilon) {
  u32 row = AT; if (row >= (u32)rows) return;
  const float* in = x + (u64)row * width; float* out = to + (u64)row * width;
  float mean = 0.0f, variance = 0.0f;
  for (int i = 0; i < width; i++) mean += in[i];
  mean /= width;
  for (int i = 0; i < width; i++) variance += (in[i] - mean) * (in[i] - mean);
  float root = sqrtf(variance / width + epsilon);
  for (int i = 0; i < width; i++) out[i] = (in[i] - mean) / root * gain[i] + shift[i];
  means[row] = mean; roots[row] = root;
}
extern "C" __global__ void norm_back(float* dx, const float* means, const float* roots, const float* x, const float* gain, const float* dy, int rows, int width) {
  u32 row = AT; if (row >= (u32)rows) return;
  u64 start = (u64)row * width;
  float mean = means[row], root = roots[row], sum = 0.0f, along = 0.0f;
  for (int i = 0; i < width; i++) {
    float g = dy[start + i] * gain[i];
    sum += g; along += g * (x[start + i] - mean) / root;
  }
  for (int i = 0; i < width; i++) {
    float g = dy[start + i] * gain[i], n = (x[start + i] - mean) / root;
    dx[start + i] = (g - sum / width - n * along / width) / root;
  }
}
extern "C" __global__ void norm_back_parameters(float* dgain, float* dshift, const float* means, const float* roots, const float* x, const float* dy, int rows, int width) {
  u32 column = AT; if (column >= (u32)width) return;
  float gain = 0.0f, shift = 0.0f;
  for (int row = 0; row < rows; row++) {
    u64 i = (u64)row * width + column;
    gain += dy[i] * (x[i] - means[row]) / roots[row]; shift += dy[i];
  }
  dgain[column] = gain; dshift[column] = shift;
}
extern "C" __global__ void add(float* to, const float* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  to[i] += x[i];
}
extern "C" __global__ void gemm_plain(float* c, const float* a, const float* b, int rows, int columns, int inner, int turn_a, int turn_b) {
  u32 i = AT; if (i >= (u32)rows * columns) return;
  u32 row = i / columns, column = i % columns;
  float sum = 0.0f;
  for (int k = 0; k < inner; k++) {
    float x = turn_a ? a[(u64)k * rows + row] : a[(u64)row * inner + k];
    float y = turn_b ? b[(u64)column * inner + k] : b[(u64)k * columns + column];
    sum += x * y;
  }
  c[i] = sum;
}
// Task 0: binary, 1: multiclass, 2: regression; each row's loss and its slopes by the logits.
extern "C" __global__ void loss(float* slopes, double* losses, const float* logits, const float* labels, const float* weights, int rows, int outputs, int task, float scale) {
  u32 row = AT; if (row >= (u32)rows) return;
  const float* in = logits + (u64)row * outputs; float* out = slopes + (u64)row * outputs;
  double weight = weights[row], factor = weight * scale, label = labels[row];
  if (task == 0) {
    double z = in[0], e = exp(-fabs(z));
    double p = z >= 0 ? 1 / (1 + e) : e / (1 + e);
    out[0] = (float)((p - label) * factor);
    losses[row] = (fmax(z, 0.0) + log1p(e) - z * label) * weight;
  } else if (task == 2) {
    double error = (double)in[0] - label;
    out[0] = (float)(error * factor);
    losses[row] = error * error / 2 * weight;
  } else {
    double greatest = in[0], sum = 0;
    for (int i = 1; i < outputs; i++) greatest = fmax(greatest, (double)in[i]);
    for (int i = 0; i < outputs; i++) sum += exp((double)in[i] - greatest);
    for (int i = 0; i < outputs; i++)
      out[i] = (float)((exp((double)in[i] - greatest) / sum - (i == (int)label ? 1.0 : 0.0)) * factor);
    losses[row] = (greatest + log(sum) - in[(int)label]) * weight;
  }
}
extern "C" __global__ void sum_rows(double* partial, const double* x, int n) {
  u32 at = AT, threads = gridDim.x * blockDim.x; double sum = 0;
  for (u32 i = at; i < (u32)n; i += threads) sum += x[i];
  partial[at] = sum;
}
extern "C" __global__ void sum_squares(double* partial, const float* x, int n) {
  u32 at = AT, threads = gridDim.x * blockDim.x; double sum = 0;
  for (u32 i = at; i < (u32)n; i += threads) sum += (double)x[i] * x[i];
  partial[at] = sum;
}
extern "C" __global__ void adamw(float* p, float* m, float* v, const float* g, const float* decays, int n, float factor, float rate, float decay, float beta1, float beta2, float correction1, float correction2, float epsilon) {
  u32 i = AT; if (i >= (u32)n) return;
  float slope = g[i] * factor;
  float first = beta1 * m[i] + (1.0f - beta1) * slope;
  float second = beta2 * v[i] + (1.0f - beta2) * (slope * slope);
  m[i] = first; v[i] = second;
  float step = (first / correction1) / (sqrtf(second / correction2) + epsilon);
  p[i] -= rate * (step + decay * decays[i] * p[i]);
}
extern "C" __global__ void to_bf16(unsigned short* to, const float* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  u32 bits = __float_as_uint(x[i]);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { to[i] = (unsigned short)((bits >> 16) | 0x40u); return; }
  to[i] = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
extern "C" __global__ void from_bf16(float* to, const unsigned short* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  to[i] = __uint_as_float((u32)x[i] << 16);
}
extern "C" __global__ void to_f16(unsigned short* to, const float* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x[i])); to[i] = h;
}
extern "C" __global__ void from_f16(float* to, const unsigned short* x, int n) {
  u32 i = AT; if (i >= (u32)n) return;
  float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x[i])); to[i] = f;
}
"#;
