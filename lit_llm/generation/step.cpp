// One token of each of some prompts through a whole network: embeddings in, logits out.
//
// A step needs every weight once, so reading them is what takes the time. All threads stay in one
// parallel region for all layers and meet at barriers, which cost about a microsecond; they read
// rows of a matrix, one behind the other. Sums are float32, whatever the weights.
//
// Letters: R prompts, D width, H query heads, K key/value heads, E channels of a head, F width of
// the MLP.

#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <utility>
#include <vector>

#include "numbers.h"
#include "tiles.h"

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

struct Sizes {
    int64_t n_layer, d_model, n_head, kv_heads, head_dim, ff_dim, vocab_size, slots, rows, threads;
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
    void *keys, *values;  // (R, K, slots, E)
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

// Inputs (R, n) of a matrix's products, R at most 16. One is multiplied as it lies there; of several
// each number of a row meets those of all inputs in one instruction: `turned` is (n, 16).
template <class W>
struct Inputs {
    static constexpr int64_t AT_ONCE = 8;  // rows of a matrix

    const float* x;
    int64_t n, R;
    std::vector<float> turned;

    Inputs(const float* x, int64_t n, int64_t R) : x(x), n(n), R(R) {
        if (R == 1) return;
        turned.assign(n * LANES, 0.0f);
        for (int64_t r = 0; r < R; ++r)
            for (int64_t i = 0; i < n; ++i) turned[i * LANES + r] = x[r * n + i];
    }

    void multiply(Matrix m, int64_t first, int64_t last, float* out, int64_t apart,
                  bool add) const {
        if (R == 1) return ::multiply<W>(m, x, n, first, last, out, add);
        int64_t row = first;
        for (; row + AT_ONCE <= last; row += AT_ONCE) rows<AT_ONCE>(m, row, out, apart, add);
        for (; row < last; ++row) rows<1>(m, row, out, apart, add);
    }

    // Sums stay in registers, for the loops over them are unrolled. What follows is fetched one
    // line behind the other: so many rows side by side are too many for the prefetcher.
    template <int ROWS>
    __attribute__((noinline)) void rows(Matrix m, int64_t row, float* out, int64_t apart,
                                        bool add) const {
        const W* w = static_cast<const W*>(m.weight) + row * n;
        const char* next = (const char*)(w + ROWS * n);
        const float* of_x = turned.data();
        Lanes sums[ROWS] = {};
        for (int64_t i = 0; i < n; ++i) {
            if (i % (64 / sizeof(W)) == 0)
                for (int line = 0; line < ROWS; ++line, next += 64) __builtin_prefetch(next, 0, 2);
            const Lanes inputs = load(of_x + i * LANES);
#pragma GCC unroll 8
            for (int j = 0; j < ROWS; ++j) sums[j] += wide(w[j * n + i]) * inputs;
        }
#pragma GCC unroll 8
        for (int j = 0; j < ROWS; ++j) {
            const float scale = m.scale ? m.scale[row + j] : 1.0f;
            for (int64_t r = 0; r < R; ++r) {
                float& to = out[r * apart + row + j];
                to = add ? to + sums[j][r] * scale : sums[j][r] * scale;
            }
        }
    }
};

#ifdef HAS_TILES

// Inputs, rounded to bfloat16, are one right factor; the matrix's rows are left factors as they lie
// in memory. Two tiles of rows are multiplied while the next two are fetched.
struct TiledInputs {
    const float* x;
    int64_t n, R;
    std::vector<uint32_t> memory;
    uint32_t* paired;  // tiles [n / 32], on a line's border

    TiledInputs(const float* x, int64_t n, int64_t R)
        : x(x), n(n), R(R), memory(n / WIDE * FLOATS + TILE) {
        paired = memory.data() + (64 - uintptr_t(memory.data()) % 64) % 64 / 4;
        const __m512i column = _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80,
                                                64, 48, 32, 16, 0);
        for (int64_t r = 0; r < R; ++r)
            for (int64_t i = 0; i + WIDE <= n; i += WIDE) {
                const float* from = x + r * n + i;
                const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + TILE),
                                                                   _mm512_loadu_ps(from));
                _mm512_i32scatter_epi32(paired + i / WIDE * FLOATS + r, column, pairs, 4);
            }
    }

    void multiply(Matrix m, int64_t first, int64_t last, float* out, int64_t apart,
                  bool add) const {
        const int64_t whole = n % WIDE ? first : first + (last - first) / WIDE * WIDE;
        for (int64_t row = first; row < whole; row += WIDE) tiles(m, row, out, apart, add);
        if (whole < last) Inputs<bfloat16>(x, n, R).multiply(m, whole, last, out, apart, add);
    }

    void tiles(Matrix m, int64_t row, float* out, int64_t apart, bool add) const {
        alignas(64) float sums[WIDE][TILE];
        const bfloat16* w = static_cast<const bfloat16*>(m.weight) + row * n;
        const char* next = (const char*)(w + WIDE * n);
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t i = 0; i < n; i += WIDE, next += 2 * BYTES) {
            for (int64_t line = 0; line < 2 * BYTES; line += 64)
                _mm_prefetch(next + line, _MM_HINT_T1);
            _tile_loadd(2, w + i, 2 * n);
            _tile_loadd(3, w + TILE * n + i, 2 * n);
            _tile_loadd(4, paired + i / WIDE * FLOATS, 64);
            _tile_dpbf16ps(0, 2, 4);
            _tile_dpbf16ps(1, 3, 4);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[TILE], 64);
        for (int64_t r = 0; r < R; ++r)
            for (int64_t j = 0; j < WIDE; ++j) {
                float& to = out[r * apart + row + j];
                to = add ? to + sums[j][r] : sums[j][r];
            }
    }
};

#endif

template <class C>
static inline float product(const float* x, const C* y, int64_t n) {
    Lanes sums = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sums += load(x + i) * load(y + i);
    float sum = total(sums);
    for (; i < n; ++i) sum += x[i] * wide(y[i]);
    return sum;
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

// One query head of prompt r over the slots up to `position`, whose key and value are in qkv, not
// yet in the cache: the first query head of a group writes them there, and no other reads that slot.
template <class C>
static void attend(const Sizes& s, const Layer& layer, Cache cache, const float* qkv,
                   const float* cos, const float* sin, int64_t position, int64_t r, int64_t head,
                   float* out) {
    const int64_t E = s.head_dim, group = s.n_head / s.kv_heads, kv = head / group;
    std::vector<float> q(E), k(E), weights(position + 1);
    std::vector<C> new_k(E), new_v(E);
    turned<C>(qkv + head * E, layer.q_norm, cos, sin, E, s.eps, q.data());
    turned<C>(qkv + (s.n_head + kv) * E, layer.k_norm, cos, sin, E, s.eps, k.data());
    const float* v = qkv + (s.n_head + s.kv_heads + kv) * E;
    for (int64_t i = 0; i < E; ++i) narrow(k[i], new_k[i]), narrow(v[i], new_v[i]);
    C* keys = static_cast<C*>(cache.keys) + (r * s.kv_heads + kv) * s.slots * E;
    C* values = static_cast<C*>(cache.values) + (r * s.kv_heads + kv) * s.slots * E;
    auto at = [&](C* slots, std::vector<C>& last, int64_t t) {
        return t < position ? slots + t * E : last.data();
    };

    const float scale = 1.0f / std::sqrt(float(E));
    for (int64_t t = 0; t <= position; ++t)
        weights[t] = product(q.data(), at(keys, new_k, t), E) * scale;
    const float most = *std::max_element(weights.begin(), weights.end());
    float sum_of_all = 0;
#pragma omp simd reduction(+ : sum_of_all)
    for (int64_t t = 0; t <= position; ++t) {
        weights[t] = exponential(weights[t] - most);
        sum_of_all += weights[t];
    }
    for (float& weight : weights) weight /= sum_of_all;
    std::fill(out, out + E, 0.0f);
    for (int64_t t = 0; t <= position; ++t) {
        const C* value = at(values, new_v, t);
        const float weight = weights[t];
#pragma omp simd
        for (int64_t i = 0; i < E; ++i) out[i] += weight * wide(value[i]);
    }
    if (head % group == 0) {
        std::copy(new_k.begin(), new_k.end(), keys + position * E);
        std::copy(new_v.begin(), new_v.end(), values + position * E);
    }
}

constexpr int64_t SHARE = 32;  // rows of a matrix that one thread multiplies at a time

// x (R, D) enters as the tokens' embeddings, cos and sin (R, E) as their rotations; logits
// (R, vocab_size) are the result.
template <class W, class C, class Inputs>
static void step(const Sizes& s, const Layer* layers, const Head& head, const Cache* caches,
                 const float* cos, const float* sin, const int64_t* positions, float* x,
                 float* logits) {
    const int64_t R = s.rows, D = s.d_model, F = s.ff_dim, H = s.n_head, E = s.head_dim;
    const int64_t Q = H * E, KV = s.kv_heads * E, ALL = Q + 2 * KV;
    std::vector<float> qkv(R * ALL), mixed(R * Q), gate(R * F), up(R * F);
#pragma omp parallel num_threads(s.threads)
    {
        const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        std::vector<float> h(R * D);
#ifdef HAS_TILES
        const TileConfig config;
        _tile_loadconfig(&config);
#endif
        auto mine = [&](int64_t rows) {  // of a matrix: whole tiles
            const int64_t tiles = (rows + SHARE - 1) / SHARE;
            return std::make_pair(std::min(rows, tiles * me / all * SHARE),
                                  std::min(rows, tiles * (me + 1) / all * SHARE));
        };
        auto share = [&](Matrix m, const Inputs& inputs, int64_t rows, float* out,
                         int64_t apart, bool add = false) {
            const auto [first, last] = mine(rows);
            inputs.multiply(m, first, last, out, apart, add);
        };
        auto norm = [&](const void* weight) {
            for (int64_t r = 0; r < R; ++r) normed<C>(x + r * D, weight, D, s.eps, h.data() + r * D);
        };
        for (int64_t l = 0; l < s.n_layer; ++l) {
            const Layer& layer = layers[l];
            norm(layer.norm_1);
            const Inputs of_attention(h.data(), D, R);
            share(layer.q, of_attention, Q, qkv.data(), ALL);
            share(layer.k, of_attention, KV, qkv.data() + Q, ALL);
            share(layer.v, of_attention, KV, qkv.data() + Q + KV, ALL);
#pragma omp barrier
            for (int64_t i = R * H * me / all; i < R * H * (me + 1) / all; ++i) {
                const int64_t r = i / H;
                attend<C>(s, layer, caches[l], qkv.data() + r * ALL, cos + r * E, sin + r * E,
                          positions[r], r, i % H, mixed.data() + i * E);
            }
#pragma omp barrier
            share(layer.o, Inputs(mixed.data(), Q, R), D, x, D, true);
#pragma omp barrier
            norm(layer.norm_2);
            const Inputs of_mlp(h.data(), D, R);
            share(layer.gate, of_mlp, F, gate.data(), F);
            share(layer.up, of_mlp, F, up.data(), F);
            const auto [first, last] = mine(F);
            for (int64_t r = 0; r < R; ++r)  // silu(gate) * up, of the columns of this thread
#pragma omp simd
                for (int64_t i = r * F + first; i < r * F + last; ++i)
                    up[i] *= gate[i] * sigmoid(gate[i]);
#pragma omp barrier
            share(layer.down, Inputs(up.data(), F, R), D, x, D, true);
#pragma omp barrier
        }
        norm(head.norm);
        share(head.matrix, Inputs(h.data(), D, R), s.vocab_size, logits, s.vocab_size);
#ifdef HAS_TILES
        _tile_release();
#endif
    }
}

#define STEP(NAME, W, C, INPUTS)                                                                 \
    extern "C" void NAME(const Sizes* s, const Layer* layers, const Head* head,                  \
                         const Cache* caches, const float* cos, const float* sin,                \
                         const int64_t* positions, float* x, float* logits) {                    \
        step<W, C, INPUTS>(*s, layers, *head, caches, cos, sin, positions, x, logits);           \
    }

STEP(step_float32, float, float, Inputs<float>)
#ifdef HAS_TILES
STEP(step_bfloat16, bfloat16, bfloat16, TiledInputs)
#else
STEP(step_bfloat16, bfloat16, bfloat16, Inputs<bfloat16>)
#endif
STEP(step_int8_float32, int8_t, float, Inputs<int8_t>)
STEP(step_int8_bfloat16, int8_t, bfloat16, Inputs<int8_t>)
