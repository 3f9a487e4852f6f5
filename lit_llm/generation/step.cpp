// One token of one prompt through a whole network: embedding in, logits out.
//
// A token needs every weight once, so reading them is what takes the time. All threads stay in one
// parallel region for all layers and meet at barriers, which cost about a microsecond; they read
// rows of a matrix, one behind the other, four at a time. Sums are float32, whatever the weights.
//
// Letters: D width, H query heads, K key/value heads, E channels of a head, F width of the MLP.

#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct bfloat16 {
    uint16_t bits;
};

static inline float wide(float x) { return x; }
static inline float wide(int8_t x) { return x; }
static inline float wide(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

// Sixteen numbers at once; the compiler cuts them into what the processor has.
constexpr int LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));

template <class V, class T>
static inline V loaded(const T* from) {
    V values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

static inline Lanes load(const float* from) { return loaded<Lanes>(from); }
#ifdef __AVX512F__  // GCC 12 makes up to four instructions of a conversion that is one
static inline Lanes load(const int8_t* from) {
    return Lanes(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from))));
}
static inline Lanes load(const bfloat16* from) {
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    return Lanes(_mm512_slli_epi32(words, 16));
}
#else
static inline Lanes load(const int8_t* from) {
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    typedef int16_t Halves __attribute__((vector_size(2 * LANES)));
    typedef int32_t Words __attribute__((vector_size(4 * LANES)));
    const Halves halves = __builtin_convertvector(loaded<Bytes>(from), Halves);
    return __builtin_convertvector(__builtin_convertvector(halves, Words), Lanes);
}
static inline Lanes load(const bfloat16* from) {
    typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
    typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
    return Lanes(__builtin_convertvector(loaded<Halves>(from), Words) << 16);
}
#endif

static inline void narrow(float x, float& y) { y = x; }
static inline void narrow(float x, bfloat16& y) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    y.bits = is_nan ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// e^x within 2e-7, relative; the library's would not be vectorized.
static inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    float n = std::nearbyint(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666667e-2f
            + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
    uint32_t bits = uint32_t(int32_t(n) + 127) << 23;  // 2^n
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

struct Sizes {
    int64_t n_layer, d_model, n_head, kv_heads, head_dim, ff_dim, vocab_size, slots, threads;
    double eps;
};

struct Matrix {
    const void* weight;
    const float* scale;  // of each row of int8 weights; null for others
};

struct Layer {
    const void *norm_1, *norm_2, *q_norm, *k_norm;  // the latter two null without qk_norm
    Matrix q, k, v, o, gate, up, down;
};

struct Head {
    const void* norm;
    Matrix matrix;
};

struct Cache {
    void *keys, *values;  // (K, slots, E)
};

static inline float total(Lanes x) {
    float values[LANES], sum = 0;
    std::memcpy(values, &x, sizeof values);
#pragma omp simd reduction(+ : sum)
    for (int lane = 0; lane < LANES; ++lane) sum += values[lane];
    return sum;
}

// Rows `first` to `last` of a matrix of n columns times x, into `out`, or added to what is there.
// One row behind the other: memory is fastest if it is read from one end to the other. A function
// of its own, for within the parallel region the sums would not be kept in registers.
template <class W>
__attribute__((noinline)) static void multiply(Matrix m, const float* x, int64_t n, int64_t first,
                                               int64_t last, float* out, bool add) {
    for (int64_t row = first; row < last; ++row) {
        const W* w = static_cast<const W*>(m.weight) + row * n;
        Lanes a = {}, b = {}, c = {}, d = {};
        int64_t i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES) {
            a += load(w + i) * load(x + i);
            b += load(w + i + LANES) * load(x + i + LANES);
            c += load(w + i + 2 * LANES) * load(x + i + 2 * LANES);
            d += load(w + i + 3 * LANES) * load(x + i + 3 * LANES);
        }
        float sum = total((a + b) + (c + d));
        for (; i < n; ++i) sum += wide(w[i]) * x[i];
        if (m.scale) sum *= m.scale[row];
        out[row] = add ? out[row] + sum : sum;
    }
}

template <class C>
__attribute__((noinline)) static void normed(const float* x, const void* norm, int64_t n,
                                             float eps, float* out) {
    const C* weight = static_cast<const C*>(norm);
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
    float inverse = 1.0f / std::sqrt(squares / n + eps);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inverse * wide(weight[i]);
}

// Norms (where there is one) and turns one head's query or key: RoPE by halves.
template <class C>
static inline void turned(const float* x, const void* norm, const float* cos, const float* sin,
                          int64_t E, float eps, float* out) {
    std::vector<float> copy(x, x + E);
    if (norm) normed<C>(x, norm, E, eps, copy.data());
    for (int64_t i = 0; i < E / 2; ++i) {
        float first = copy[i], second = copy[i + E / 2];
        out[i] = first * cos[i] - second * sin[i];
        out[i + E / 2] = second * cos[i] + first * sin[i];
    }
}

// One query head over the slots up to `position`, whose key and value are in qkv, not yet in the
// cache: the first query head of a group writes them there, and no other reads that slot.
template <class C>
static void attend(const Sizes& s, const Layer& layer, Cache cache, const float* qkv,
                   const float* cos, const float* sin, int64_t position, int64_t head, float* out) {
    const int64_t E = s.head_dim, group = s.n_head / s.kv_heads, kv = head / group;
    std::vector<float> q(E), k(E), weights(position + 1);
    std::vector<C> new_k(E), new_v(E);
    turned<C>(qkv + head * E, layer.q_norm, cos, sin, E, s.eps, q.data());
    turned<C>(qkv + (s.n_head + kv) * E, layer.k_norm, cos, sin, E, s.eps, k.data());
    const float* v = qkv + (s.n_head + s.kv_heads + kv) * E;
    for (int64_t i = 0; i < E; ++i) narrow(k[i], new_k[i]), narrow(v[i], new_v[i]);
    C* keys = static_cast<C*>(cache.keys) + kv * s.slots * E;
    C* values = static_cast<C*>(cache.values) + kv * s.slots * E;
    auto at = [&](C* slots, std::vector<C>& last, int64_t t) {
        return t < position ? slots + t * E : last.data();
    };

    const float scale = 1.0f / std::sqrt(float(E));
    for (int64_t t = 0; t <= position; ++t) {
        const C* key = at(keys, new_k, t);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < E; ++i) sum += q[i] * wide(key[i]);
        weights[t] = sum * scale;
    }
    const float most = *std::max_element(weights.begin(), weights.end());
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t t = 0; t <= position; ++t) {
        weights[t] = exponential(weights[t] - most);
        total += weights[t];
    }
    std::fill(out, out + E, 0.0f);
    for (int64_t t = 0; t <= position; ++t) {
        const C* value = at(values, new_v, t);
        const float weight = weights[t] / total;
#pragma omp simd
        for (int64_t i = 0; i < E; ++i) out[i] += weight * wide(value[i]);
    }
    if (head % group == 0) {
        std::copy(new_k.begin(), new_k.end(), keys + position * E);
        std::copy(new_v.begin(), new_v.end(), values + position * E);
    }
}

// x (D) enters as the token's embedding; logits (vocab_size) are the result.
template <class W, class C>
static void step(const Sizes& s, const Layer* layers, const Head& head, const Cache* caches,
                 const float* cos, const float* sin, int64_t position, float* x, float* logits) {
    const int64_t D = s.d_model, Q = s.n_head * s.head_dim, KV = s.kv_heads * s.head_dim;
    std::vector<float> qkv(Q + 2 * KV), mixed(Q), gate(s.ff_dim), up(s.ff_dim);
#pragma omp parallel num_threads(s.threads)
    {
        const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        std::vector<float> h(D);
        auto share = [&](Matrix m, const float* input, int64_t columns, int64_t rows, float* out,
                         bool add = false) {
            multiply<W>(m, input, columns, rows * me / all, rows * (me + 1) / all, out, add);
        };
        for (int64_t l = 0; l < s.n_layer; ++l) {
            const Layer& layer = layers[l];
            normed<C>(x, layer.norm_1, D, s.eps, h.data());
            share(layer.q, h.data(), D, Q, qkv.data());
            share(layer.k, h.data(), D, KV, qkv.data() + Q);
            share(layer.v, h.data(), D, KV, qkv.data() + Q + KV);
#pragma omp barrier
            for (int64_t i = s.n_head * me / all; i < s.n_head * (me + 1) / all; ++i)
                attend<C>(s, layer, caches[l], qkv.data(), cos, sin, position, i,
                          mixed.data() + i * s.head_dim);
#pragma omp barrier
            share(layer.o, mixed.data(), Q, D, x, true);
#pragma omp barrier
            normed<C>(x, layer.norm_2, D, s.eps, h.data());
            share(layer.gate, h.data(), D, s.ff_dim, gate.data());
            share(layer.up, h.data(), D, s.ff_dim, up.data());
            const int64_t first = s.ff_dim * me / all, last = s.ff_dim * (me + 1) / all;
#pragma omp simd
            for (int64_t i = first; i < last; ++i)  // silu(gate) * up, of the rows of this thread
                up[i] *= gate[i] / (1.0f + exponential(-gate[i]));
#pragma omp barrier
            share(layer.down, up.data(), s.ff_dim, D, x, true);
#pragma omp barrier
        }
        normed<C>(x, head.norm, D, s.eps, h.data());
        share(head.matrix, h.data(), D, s.vocab_size, logits);
    }
}

#define STEP(NAME, W, C)                                                                         \
    extern "C" void NAME(const Sizes* s, const Layer* layers, const Head* head,                  \
                         const Cache* caches, const float* cos, const float* sin,                \
                         int64_t position, float* x, float* logits) {                            \
        step<W, C>(*s, layers, *head, caches, cos, sin, position, x, logits);                    \
    }

STEP(step_float32, float, float)
STEP(step_bfloat16, bfloat16, bfloat16)
STEP(step_int8_float32, int8_t, float)
STEP(step_int8_bfloat16, int8_t, bfloat16)
