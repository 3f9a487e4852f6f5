// Softmax and cross-entropy of logits, a row at a time while it is in the cache. Sums are float32.
//
// Letters: N rows, V token ids that exist; `stride` is the length of a row, padding included.

#include <omp.h>

#include <algorithm>

#include "numbers.h"

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
