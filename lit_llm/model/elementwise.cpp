// What a block computes between its matrix products: norm, rotation and gate, forward and backward.
// Each number is read once and written once. Computed in float32; X, W and O are the types of
// inputs, weights and outputs, C one type of all.
//
// Letters as in lit_llm/model: B, T, D, E; H heads, N rows.

#include <omp.h>

#include <algorithm>

#include "numbers.h"

constexpr int64_t ROWS = 64;  // whose gradients of a weight are added up together

// A value as it would be if it had been kept in another type for a moment.
template <class C>
static inline float rounded(float x) {
    C kept;
    narrow(x, kept);
    return wide(kept);
}

// -- RMSNorm --------------------------------------------------------------------------------------

template <class X, class W, class O>
static void norm(const X* x, const W* weight, int64_t N, int64_t D, float eps, O* out,
                 float* inverse, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < N; ++n) {
        const X* row = x + n * D;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < D; ++i) squares += wide(row[i]) * wide(row[i]);
        const float factor = inverse[n] = 1.0f / std::sqrt(squares / D + eps);
#pragma omp simd
        for (int64_t i = 0; i < D; ++i)
            narrow(rounded<X>(wide(row[i]) * factor) * wide(weight[i]), out[n * D + i]);
    }
}

// `sums` has room for D numbers of every ROWS rows.
template <class X, class W, class O>
static void norm_backward(const O* gradient, const X* x, const W* weight, const float* inverse,
                          int64_t N, int64_t D, X* of_x, float* sums, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t block = 0; block < (N + ROWS - 1) / ROWS; ++block) {
        float* sum = sums + block * D;
        std::fill(sum, sum + D, 0.0f);
        for (int64_t n = block * ROWS; n < std::min(N, (block + 1) * ROWS); ++n) {
            const O* g = gradient + n * D;
            const X* row = x + n * D;
            const float factor = inverse[n];
            float along = 0;
#pragma omp simd reduction(+ : along)
            for (int64_t i = 0; i < D; ++i) {
                const float product = wide(g[i]) * wide(row[i]) * factor;
                sum[i] += product;
                along += product * wide(weight[i]);
            }
            along /= D;
#pragma omp simd
            for (int64_t i = 0; i < D; ++i)
                narrow((wide(g[i]) * wide(weight[i]) - wide(row[i]) * factor * along) * factor,
                       of_x[n * D + i]);
        }
    }
}

// -- RoPE -----------------------------------------------------------------------------------------

// x is (B, H, T, E) with strides; cos and sin are (B or 1, T, E); out is contiguous. `sign` is -1
// for the turn back.
template <class C>
static void turn(const C* x, const int64_t* stride, const float* cos, const float* sin,
                 int64_t table, const int64_t* size, float sign, C* out, int64_t threads) {
    const int64_t B = size[0], H = size[1], T = size[2], E = size[3], half = E / 2;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t n = 0; n < B * H; ++n)
        for (int64_t t = 0; t < T; ++t) {
            const int64_t b = n / H;
            const C* from = x + b * stride[0] + n % H * stride[1] + t * stride[2];
            const float *c = cos + b * table + t * E, *s = sin + b * table + t * E;
            C* to = out + (n * T + t) * E;
#pragma omp simd
            for (int64_t i = 0; i < half; ++i) {
                const float first = wide(from[i]), second = wide(from[i + half]);
                narrow(first * c[i] - sign * second * s[i], to[i]);
                narrow(second * c[i] + sign * first * s[i], to[i + half]);
            }
        }
}

// -- SwiGLU ---------------------------------------------------------------------------------------

constexpr int64_t PIECE = 4096;

template <class Work>
static void in_pieces(int64_t N, int64_t threads, Work work) {
#pragma omp parallel for num_threads(threads)
    for (int64_t first = 0; first < N; first += PIECE) work(first, std::min(N, first + PIECE));
}

template <class C>
static void gate(const C* gate, const C* up, int64_t N, C* out, int64_t threads) {
    in_pieces(N, threads, [=](int64_t first, int64_t last) {
#pragma omp simd
        for (int64_t i = first; i < last; ++i) {
            const float x = wide(gate[i]);
            narrow(x * sigmoid(x) * wide(up[i]), out[i]);
        }
    });
}

template <class C>
static void gate_backward(const C* gradient, const C* gate, const C* up, int64_t N, C* of_gate,
                          C* of_up, int64_t threads) {
    in_pieces(N, threads, [=](int64_t first, int64_t last) {
#pragma omp simd
        for (int64_t i = first; i < last; ++i) {
            const float x = wide(gate[i]), g = wide(gradient[i]), s = sigmoid(x);
            narrow(g * x * s, of_up[i]);
            narrow(g * wide(up[i]) * s * (1.0f + x * (1.0f - s)), of_gate[i]);
        }
    });
}

// -- names ----------------------------------------------------------------------------------------

#define NORMS(NAME, X, W, O)                                                                       \
    extern "C" void norm_##NAME(const X* x, const W* weight, int64_t N, int64_t D, float eps,      \
                                O* out, float* inverse, int64_t threads) {                         \
        norm(x, weight, N, D, eps, out, inverse, threads);                                         \
    }                                                                                              \
    extern "C" void norm_backward_##NAME(const O* gradient, const X* x, const W* weight,           \
                                         const float* inverse, int64_t N, int64_t D, X* of_x,      \
                                         float* sums, int64_t threads) {                           \
        norm_backward(gradient, x, weight, inverse, N, D, of_x, sums, threads);                    \
    }

NORMS(float32, float, float, float)
NORMS(mixed, float, float, bfloat16)
NORMS(bfloat16, bfloat16, bfloat16, bfloat16)

#define OF(NAME, C)                                                                                \
    extern "C" void turn_##NAME(const C* x, const int64_t* stride, const float* cos,               \
                                const float* sin, int64_t table, const int64_t* size, float sign,  \
                                C* out, int64_t threads) {                                         \
        turn(x, stride, cos, sin, table, size, sign, out, threads);                                \
    }                                                                                              \
    extern "C" void gate_##NAME(const C* of, const C* up, int64_t N, C* out, int64_t threads) {    \
        gate(of, up, N, out, threads);                                                             \
    }                                                                                              \
    extern "C" void gate_backward_##NAME(const C* gradient, const C* of, const C* up, int64_t N,   \
                                         C* of_gate, C* of_up, int64_t threads) {                  \
        gate_backward(gradient, of, up, N, of_gate, of_up, threads);                               \
    }

OF(float32, float)
OF(bfloat16, bfloat16)
