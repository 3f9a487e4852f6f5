// Causal attention in bfloat16 and its gradients, on a CPU with AMX: one head at a time, in cache.
//
// PyTorch multiplies each little block by a call of its own, backward even of matrices that it has
// not brought into the order of the processor's tiles. Here a head is brought into it once, in each
// of the forms in which it is needed, and probabilities are computed again from the row's logarithm
// of the sum (FlashAttention, Dao et al., 2022, arXiv:2205.14135), so that none is ever kept.
//
// Letters: B sequences, H heads, T tokens, E channels of a head, a multiple of 32.

#include <omp.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "tiles.h"

#ifdef HAS_TILES

typedef uint16_t bfloat16;

constexpr int64_t KEYS = 64;  // taken at a time, backward

struct View {  // of (B, H, T, E), whose last dimension is contiguous; strides in numbers
    bfloat16* data;
    int64_t batch, head, row;
    bfloat16* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

struct Sizes {
    int64_t B, H, T, E, threads;
};

// -- forms of a head -----------------------------------------------------------------------------

// 16 x 16 numbers of 32 bits, transposed; strides in those.
static inline void transpose(const void* from, int64_t stride, void* to) {
    const __m512i rows = _mm512_mullo_epi32(
        _mm512_set1_epi32(int(stride)),
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (int64_t i = 0; i < TILE; ++i)
        _mm512_store_si512((int32_t*)to + i * TILE,
                           _mm512_i32gather_epi32(rows, (const int32_t*)from + i, 4));
}

// 32 rows and 16 columns, paired.
static inline void pair(const bfloat16* from, int64_t stride, bfloat16* to) {
    for (int64_t i = 0; i < TILE; ++i) {
        const bfloat16* row = from + 2 * i * stride;
        const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)row));
        const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + stride)));
        _mm512_store_si512(to + i * WIDE, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

// (T, E) into (tokens, E), contiguous, with zeros behind.
static void copy_rows(const bfloat16* from, int64_t stride, int64_t T, int64_t tokens, int64_t E,
                      bfloat16* to) {
    for (int64_t t = 0; t < T; ++t) std::memcpy(to + t * E, from + t * stride, 2 * E);
    std::memset(to + T * E, 0, 2 * (tokens - T) * E);
}

// Tiles [t / 16][e / 32] of a right factor whose columns are tokens.
static void pair_channels(const bfloat16* rows, int64_t tokens, int64_t E, bfloat16* to) {
    for (int64_t t = 0; t < tokens; t += TILE)
        for (int64_t e = 0; e < E; e += WIDE, to += HALVES) transpose(rows + t * E + e, E / 2, to);
}

// Tiles [t / 32][e / 16] of a right factor whose columns are channels.
static void pair_tokens(const bfloat16* rows, int64_t tokens, int64_t E, bfloat16* to) {
    for (int64_t t = 0; t < tokens; t += WIDE)
        for (int64_t e = 0; e < E; e += TILE, to += HALVES) pair(rows + t * E + e, E, to);
}

// -- arithmetic ----------------------------------------------------------------------------------

// 2^x for x <= 127 within 3e-6, relative; 0 far below.
static inline __m512 power_of_two(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-200.0f));
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 wide(const bfloat16* from) {
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

static inline void store(bfloat16* to, __m512 low, __m512 high) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// 2 x 2 tiles of sums, of `steps` left and right tiles. Strides: of a left tile's rows in bytes, of
// the next step and the next tile in numbers.
static inline void multiply(const bfloat16* left, int64_t left_bytes, int64_t left_step,
                            int64_t left_tile, const bfloat16* right, int64_t right_step,
                            int64_t right_tile, int64_t steps) {
    for (int64_t i = 0; i < steps; ++i, left += left_step, right += right_step) {
        _tile_loadd(4, left, left_bytes);
        _tile_loadd(5, left + left_tile, left_bytes);
        _tile_loadd(6, right, 64);
        _tile_loadd(7, right + right_tile, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static inline void put(float* to, int64_t bytes, int64_t right, int64_t below) {
    _tile_stored(0, to, bytes);
    _tile_stored(1, to + right, bytes);
    _tile_stored(2, to + below, bytes);
    _tile_stored(3, to + below + right, bytes);
}

static inline void take(const float* from, int64_t bytes, int64_t right, int64_t below) {
    _tile_loadd(0, from, bytes);
    _tile_loadd(1, from + right, bytes);
    _tile_loadd(2, from + below, bytes);
    _tile_loadd(3, from + below + right, bytes);
}

// -- memory --------------------------------------------------------------------------------------

struct Memory {  // of one thread, handed out from one block
    char* data;
    size_t used = 0;
    template <class N>
    N* take(int64_t numbers) {
        N* at = (N*)(data + used);
        used += (numbers * sizeof(N) + 63) / 64 * 64;
        return at;
    }
};

// Calls `work` with each head's number, its sequence and its place there, and what `lay_out` has made
// of the memory of the thread that runs it.
template <class LayOut, class Work>
static void each_head(const Sizes& s, LayOut lay_out, Work work) {
    Memory nothing{nullptr};
    lay_out(s, nothing);
#pragma omp parallel num_threads(s.threads)
    {
        Memory memory{(char*)std::aligned_alloc(64, nothing.used)};
        auto a = lay_out(s, memory);
        const TileConfig config;
        _tile_loadconfig(&config);
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < s.B * s.H; ++n) work(a, n, n / s.H, n % s.H);
        _tile_release();
        std::free(memory.data);
    }
}

// -- forward -------------------------------------------------------------------------------------

struct Forward {  // 32 queries at a time; a row to each of them
    int64_t T, E, tokens;
    float scale;
    bfloat16 *q, *rows;           // contiguous rows; those of keys, then of values
    bfloat16 *k_channels;         // right factor of the products with queries
    bfloat16 *v_tokens;           // right factor of the sums over keys
    float* s;                     // 32 queries x keys: scores
    bfloat16* p;                  // 32 queries x keys: probabilities, not yet divided by their sum

    int64_t stride() const { return tokens + WIDE; }  // of s and p; no power of two

    void scores(int64_t query) {
        const int64_t tile = E / WIDE * HALVES;  // of the next 16 keys
        for (int64_t key = 0; key <= query; key += WIDE) {
            clear();
            multiply(q + query * E, 2 * E, WIDE, TILE * E, k_channels + key / TILE * tile, HALVES,
                     tile, E / WIDE);
            put(s + key, 4 * stride(), TILE, TILE * stride());
        }
    }

    // Scores of a query become probabilities. Its sum and, in powers of two, its largest score.
    void exponentials(int64_t query, int64_t i, float* sum, float* most) {
        float* of = s + i * stride();
        bfloat16* to = p + i * stride();
        const int64_t sees = query + i + 1, keys = query + WIDE;
        for (int64_t key = sees; key < keys; ++key) of[key] = -INFINITY;
        __m512 largest = _mm512_load_ps(of);
        for (int64_t key = TILE; key < keys; key += TILE)
            largest = _mm512_max_ps(largest, _mm512_load_ps(of + key));
        const float log_scale = scale * 1.44269504f;
        *most = _mm512_reduce_max_ps(largest) * log_scale;
        const __m512 factor = _mm512_set1_ps(log_scale), shift = _mm512_set1_ps(*most);
        __m512 total = _mm512_setzero_ps();
        for (int64_t key = 0; key < keys; key += WIDE) {
            __m512 both[2];
            for (int64_t h = 0; h < 2; ++h) {
                both[h] = power_of_two(
                    _mm512_fmsub_ps(_mm512_load_ps(of + key + h * TILE), factor, shift));
                total = _mm512_add_ps(total, both[h]);
            }
            store(to + key, both[0], both[1]);
        }
        *sum = _mm512_reduce_add_ps(total);
    }

    void outputs(int64_t query, const float* sum, bfloat16* to, int64_t row) {
        alignas(64) float sums[WIDE][WIDE];
        const int64_t step = E / TILE * HALVES;
        for (int64_t e = 0; e < E; e += WIDE) {
            clear();
            multiply(p, 2 * stride(), WIDE, TILE * stride(), v_tokens + e / TILE * HALVES, step,
                     HALVES, query / WIDE + 1);
            put(sums[0], 4 * WIDE, TILE, TILE * WIDE);
            for (int64_t i = 0; i < WIDE && query + i < T; ++i) {
                const __m512 factor = _mm512_set1_ps(1.0f / sum[i]);
                store(to + (query + i) * row + e, _mm512_mul_ps(_mm512_load_ps(sums[i]), factor),
                      _mm512_mul_ps(_mm512_load_ps(sums[i] + TILE), factor));
            }
        }
    }
};

static Forward lay_out_forward(const Sizes& s, Memory& memory) {
    Forward a;
    a.T = s.T, a.E = s.E, a.tokens = (s.T + WIDE - 1) / WIDE * WIDE;
    a.scale = 1.0f / std::sqrt(float(s.E));
    for (bfloat16** part : {&a.q, &a.rows, &a.k_channels, &a.v_tokens})
        *part = memory.take<bfloat16>(a.tokens * s.E);
    a.s = memory.take<float>(WIDE * a.stride());
    a.p = memory.take<bfloat16>(WIDE * a.stride());
    return a;
}

// The attention of each query, and the logarithm of its sum of exponentials; lse is (B, H, T).
extern "C" void causal_attention_forward(const Sizes* sizes, const View* q, const View* k,
                                         const View* v, const View* out, float* lse) {
    const Sizes s = *sizes;
    each_head(s, lay_out_forward, [&](Forward& a, int64_t n, int64_t b, int64_t h) {
        copy_rows(q->at(b, h), q->row, s.T, a.tokens, s.E, a.q);
        copy_rows(k->at(b, h), k->row, s.T, a.tokens, s.E, a.rows);
        pair_channels(a.rows, a.tokens, s.E, a.k_channels);
        copy_rows(v->at(b, h), v->row, s.T, a.tokens, s.E, a.rows);
        pair_tokens(a.rows, a.tokens, s.E, a.v_tokens);
        for (int64_t query = 0; query < s.T; query += WIDE) {
            float sum[WIDE], most;
            a.scores(query);
            for (int64_t i = 0; i < WIDE; ++i) {
                a.exponentials(query, i, sum + i, &most);
                if (query + i < s.T)
                    lse[n * s.T + query + i] = (most + std::log2(sum[i])) * 0.693147181f;
            }
            a.outputs(query, sum, out->at(b, h), out->row);
        }
    });
}

// -- backward ------------------------------------------------------------------------------------

// Keys are taken 64 at a time and queries 32. What both have computed is transposed, a row to each
// key: p are probabilities, d the gradients of scores.
struct Backward {
    int64_t T, E, tokens;  // `tokens` is T, or what makes it whole blocks
    float scale;
    bfloat16 *q, *g, *k, *v;               // contiguous rows
    bfloat16 *q_channels, *g_channels;     // right factors of the products with keys, with values
    bfloat16 *q_tokens, *g_tokens;         // right factors of the sums over queries
    bfloat16 *k_turned;                    // left factor: tiles [key / 32][e / 16], rows are channels
    bfloat16 *p, *d;                       // 64 keys x queries
    bfloat16 *d_paired;                    // of 32 queries: tiles [key / 32][query / 16]
    float *dq;                             // tiles [query / 16][e / 16], rows are channels
    float *lse, *delta;                    // of the queries; lse in powers of two

    int64_t stride() const { return tokens + WIDE; }  // of p and d; no power of two

    // Of 64 keys and 32 queries: probabilities and gradients of scores.
    void scores(int64_t key, int64_t query, bool diagonal) {
        alignas(64) float s[WIDE][WIDE], ds[WIDE][WIDE];
        const int64_t tile = E / WIDE * HALVES;  // of the next 16 queries
        const __m512 log_scale = _mm512_set1_ps(scale * 1.44269504f), factor = _mm512_set1_ps(scale);
        const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        alignas(64) static const uint16_t ORDER[WIDE] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                                         21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26,
                                                         11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512i order = _mm512_load_si512(ORDER);
        for (int64_t half = 0; half < KEYS; half += WIDE) {
            const int64_t first = key + half;
            clear();
            multiply(k + first * E, 2 * E, WIDE, TILE * E, q_channels + query / TILE * tile, HALVES,
                     tile, E / WIDE);
            put(s[0], 4 * WIDE, TILE, TILE * WIDE);
            clear();
            multiply(v + first * E, 2 * E, WIDE, TILE * E, g_channels + query / TILE * tile, HALVES,
                     tile, E / WIDE);
            put(ds[0], 4 * WIDE, TILE, TILE * WIDE);
            for (int64_t i = 0; i < WIDE; i += 2) {
                __m512 of[2][2];  // of two keys, two times 16 queries
                for (int64_t j = 0; j < 2; ++j) {
                    __m512 ps[2];
                    for (int64_t h = 0; h < 2; ++h) {
                        const int64_t at = query + h * TILE;
                        const __m512 score = _mm512_load_ps(&s[i + j][h * TILE]);
                        __m512 x = power_of_two(
                            _mm512_fmsub_ps(score, log_scale, _mm512_load_ps(lse + at)));
                        if (diagonal) {
                            const __m512i number = _mm512_add_epi32(lanes, _mm512_set1_epi32(int(at)));
                            const __mmask16 sees = _mm512_cmpge_epi32_mask(
                                number, _mm512_set1_epi32(int(first + i + j)));
                            x = _mm512_maskz_mov_ps(sees, x);
                        }
                        const __m512 of_p = _mm512_sub_ps(_mm512_load_ps(&ds[i + j][h * TILE]),
                                                          _mm512_load_ps(delta + at));
                        of[j][h] = _mm512_mul_ps(_mm512_mul_ps(x, of_p), factor);
                        ps[h] = x;
                    }
                    const int64_t place = (half + i + j) * stride() + query;
                    store(p + place, ps[0], ps[1]);
                    store(d + place, of[j][0], of[j][1]);
                }
                for (int64_t h = 0; h < 2; ++h) {
                    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(of[1][h], of[0][h]);
                    _mm512_store_si512(d_paired + (half / WIDE * 2 + h) * HALVES + i / 2 * WIDE,
                                       _mm512_permutexvar_epi16(order, both));
                }
            }
        }
    }

    // What 64 keys add to the gradients of 32 queries.
    void add_to_queries(int64_t key, int64_t query) {
        for (int64_t e = 0; e < E; e += WIDE) {
            float* to = dq + (query / TILE * (E / TILE) + e / TILE) * FLOATS;
            const int64_t next = E / TILE * FLOATS;  // the next 16 queries
            take(to, 64, next, FLOATS);
            multiply(k_turned + (key / WIDE * (E / TILE) + e / TILE) * HALVES, 64,
                     E / TILE * HALVES, HALVES, d_paired, 2 * HALVES, HALVES, KEYS / WIDE);
            put(to, 64, next, FLOATS);
        }
    }

    // A gradient of 64 keys or values: their `p` or `d` times the queries' rows, from `key` on.
    void sum_over_queries(const bfloat16* left, const bfloat16* right, int64_t key, bfloat16* to,
                          int64_t row) {
        alignas(64) float sums[WIDE][WIDE];
        const int64_t step = E / TILE * HALVES;
        for (int64_t i = 0; i < KEYS; i += WIDE)
            for (int64_t e = 0; e < E; e += WIDE) {
                clear();
                multiply(left + i * stride() + key, 2 * stride(), WIDE, TILE * stride(),
                         right + key / WIDE * step + e / TILE * HALVES, step, HALVES,
                         (tokens - key) / WIDE);
                put(sums[0], 4 * WIDE, TILE, TILE * WIDE);
                for (int64_t j = 0; j < WIDE && key + i + j < T; ++j)
                    store(to + (key + i + j) * row + e, _mm512_load_ps(sums[j]),
                          _mm512_load_ps(sums[j] + TILE));
            }
    }

    void write_queries(bfloat16* to, int64_t row) {
        alignas(64) float turned[TILE][TILE];
        for (int64_t t = 0; t < T; t += TILE)
            for (int64_t e = 0; e < E; e += TILE) {
                transpose(dq + (t / TILE * (E / TILE) + e / TILE) * FLOATS, TILE, turned);
                for (int64_t j = 0; j < TILE && t + j < T; ++j)
                    _mm256_storeu_si256((__m256i*)(to + (t + j) * row + e),
                                        (__m256i)_mm512_cvtneps_pbh(_mm512_load_ps(turned[j])));
            }
    }
};

static Backward lay_out_backward(const Sizes& s, Memory& memory) {
    Backward a;
    a.T = s.T, a.E = s.E, a.tokens = (s.T + KEYS - 1) / KEYS * KEYS;
    a.scale = 1.0f / std::sqrt(float(s.E));
    const int64_t all = a.tokens * s.E;
    for (bfloat16** part : {&a.q, &a.g, &a.k, &a.v, &a.q_channels, &a.g_channels, &a.q_tokens,
                            &a.g_tokens, &a.k_turned})
        *part = memory.take<bfloat16>(all);
    a.p = memory.take<bfloat16>(KEYS * a.stride());
    a.d = memory.take<bfloat16>(KEYS * a.stride());
    a.d_paired = memory.take<bfloat16>(4 * HALVES);
    a.dq = memory.take<float>(all);
    a.lse = memory.take<float>(a.tokens);
    a.delta = memory.take<float>(a.tokens);
    return a;
}

static void bring_in(Backward& a, const View& gradient, const View& q, const View& k, const View& v,
                     const View& out, const float* lse, int64_t b, int64_t h) {
    const int64_t T = a.T, E = a.E, tokens = a.tokens;
    copy_rows(q.at(b, h), q.row, T, tokens, E, a.q);
    copy_rows(gradient.at(b, h), gradient.row, T, tokens, E, a.g);
    copy_rows(k.at(b, h), k.row, T, tokens, E, a.k);
    copy_rows(v.at(b, h), v.row, T, tokens, E, a.v);
    pair_channels(a.q, tokens, E, a.q_channels);
    pair_channels(a.g, tokens, E, a.g_channels);
    pair_tokens(a.q, tokens, E, a.q_tokens);
    pair_tokens(a.g, tokens, E, a.g_tokens);
    alignas(64) bfloat16 paired[HALVES];
    bfloat16* to = a.k_turned;
    for (int64_t t = 0; t < tokens; t += WIDE)
        for (int64_t e = 0; e < E; e += TILE, to += HALVES) {
            pair(a.k + t * E + e, E, paired);
            transpose(paired, TILE, to);
        }
    for (int64_t t = 0; t < tokens; ++t) {
        a.lse[t] = t < T ? lse[t] * 1.44269504f : 1e30f;  // no query: it sees nothing
        __m512 sum = _mm512_setzero_ps();
        const bfloat16* row = out.at(b, h) + t * out.row;
        for (int64_t e = 0; t < T && e < E; e += TILE)
            sum = _mm512_fmadd_ps(wide(a.g + t * E + e), wide(row + e), sum);
        a.delta[t] = _mm512_reduce_add_ps(sum);
    }
    std::memset(a.dq, 0, 4 * tokens * E);
}

// Gradients of q, k and v; lse is (B, H, T), contiguous.
extern "C" void causal_attention_backward(const Sizes* sizes, const View* gradient, const View* q,
                                          const View* k, const View* v, const View* out,
                                          const float* lse, const View* dq, const View* dk,
                                          const View* dv) {
    const Sizes s = *sizes;
    each_head(s, lay_out_backward, [&](Backward& a, int64_t n, int64_t b, int64_t h) {
        bring_in(a, *gradient, *q, *k, *v, *out, lse + n * s.T, b, h);
        for (int64_t key = 0; key < a.tokens; key += KEYS) {
            for (int64_t query = key; query < a.tokens; query += WIDE) {
                a.scores(key, query, query < key + KEYS);
                a.add_to_queries(key, query);
            }
            a.sum_over_queries(a.p, a.g_tokens, key, dv->at(b, h), dv->row);
            a.sum_over_queries(a.d, a.q_tokens, key, dk->at(b, h), dk->row);
        }
        a.write_queries(dq->at(b, h), dq->row);
    });
}

#endif
