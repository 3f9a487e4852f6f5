// Numbers of 16 and 32 bits, and an exponential that compilers vectorize, for the C++ of lit_llm.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct bfloat16 {
    uint16_t bits;
};

static inline float wide(float x) { return x; }
static inline float wide(int8_t x) { return x; }
static inline float wide(bfloat16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
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

// e^x within 2e-7, relative, for -87 < x < 88, and what is at these bounds beyond them; NaN stays
// one. The library's would not be vectorized.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float n = std::nearbyint(x * 1.44269504f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    const float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666667e-2f
                  + r * (8.3333333e-3f + r * 1.3888889e-3f)))));
    const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;  // 2^n
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
