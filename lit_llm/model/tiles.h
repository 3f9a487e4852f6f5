// The tiles of a CPU with AMX: eight matrices, each of 16 rows of 64 bytes.
//
// As a left factor a tile holds 16 x 32 bfloat16, as a sum 16 x 16 float32. As a right factor it
// holds pairs of rows, the two numbers of a column side by side: "paired" in the files that use it.

#pragma once

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

constexpr int64_t TILE = 16, WIDE = 32;  // rows of a tile, bfloat16 of its row
constexpr int64_t BYTES = 1024, HALVES = BYTES / 2, FLOATS = BYTES / 4;  // of a tile

struct alignas(64) TileConfig {  // palette 1, all eight tiles whole
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Asks Linux, once per process.
extern "C" int may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

#endif
