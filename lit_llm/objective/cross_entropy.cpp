// Softmax and cross-entropy of logits, a row at a time while it is in the cache. Sums are float32.
//
// Letters: N rows, V token ids that exist; `stride` is the length of a row, padding included.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

struct bfloat16 {
    uint16_t bits;
};

static inline float wide(float x) { return x; }
static inline float wide(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

static inline void narrow(float x, float& y) { y = x; }
static inline void narrow(float x, bfloat16& y) {  // to nearest, ties to even; NaN stays one
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    y.bits = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}

// e^x for x <= 0 within 2e-7, relative; 0 from -87 on; NaN stays one.
static inline float exponential(float x) {
    const float bounded = x < -87.0f ? -87.0f : x;
    const float n = std::nearbyint(bounded * 1.44269504f);
    const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    const float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666667e-2f
                  + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
    const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;  // 2^n
    float scale;
    std::memcpy(&scale, &bits, 4);
    return x < -87.0f ? 0.0f : p * scale;
}

// The logarithm of each row's sum of exponentials.
template <class C>
static void log_sums(const C* logits, int64_t N, int64_t V, int64_t stride, float* lse,
                     int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < N; ++i) {
        const C* row = logits + i * stride;
        float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
        for (int64_t j = 0; j < V; ++j) most = std::max(most, wide(row[j]));
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < V; ++j) sum += exponential(wide(row[j]) - most);
        lse[i] = most + std::log(sum);
    }
}

// Logits become their gradient, `factor` times softmax - one_hot; 0 where a row does not count.
template <class C>
static void to_gradient(C* logits, int64_t N, int64_t V, int64_t stride, const float* lse,
                        const int64_t* target, const bool* counts, float factor, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < N; ++i) {
        C* row = logits + i * stride;
        if (!counts[i]) {
            std::memset(row, 0, stride * sizeof(C));
            continue;
        }
        const float log_sum = lse[i], of_target = wide(row[target[i]]);
#pragma omp simd
        for (int64_t j = 0; j < V; ++j)
            narrow(exponential(wide(row[j]) - log_sum) * factor, row[j]);
        narrow((exponential(of_target - log_sum) - 1.0f) * factor, row[target[i]]);
        std::memset(row + V, 0, (stride - V) * sizeof(C));
    }
}

#define FOR(C)                                                                                     \
    extern "C" void log_sums_##C(const void* logits, int64_t N, int64_t V, int64_t stride,         \
                                 float* lse, int64_t threads) {                                    \
        log_sums((const C*)logits, N, V, stride, lse, threads);                                    \
    }                                                                                              \
    extern "C" void to_gradient_##C(void* logits, int64_t N, int64_t V, int64_t stride,            \
                                    const float* lse, const int64_t* target, const bool* counts,   \
                                    float factor, int64_t threads) {                               \
        to_gradient((C*)logits, N, V, stride, lse, target, counts, factor, threads);               \
    }

typedef float float32;
FOR(float32)
FOR(bfloat16)
