// What the device branches of src/portable.h take from CUDA, in plain C++: with `-include` of this file a host compiler
// builds them, and what only a device would run is tested on the CPU. Misaligned vector accesses are UBSan's to see.
#pragma once

#include <cstdint>
#include <cstring>

#define __CUDA_ARCH__ 0

struct alignas(16) uint4 {
    std::uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
    std::uint32_t x, y;
};
inline uint4 make_uint4(std::uint32_t x, std::uint32_t y, std::uint32_t z, std::uint32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(std::uint32_t x, std::uint32_t y) { return {x, y}; }

inline std::uint32_t __funnelshift_r(std::uint32_t low, std::uint32_t high, std::uint32_t shift)
{
    const std::uint64_t both = (static_cast<std::uint64_t>(high) << 32) | low;
    return static_cast<std::uint32_t>(both >> (shift & 31u));
}

// Four bytes of eight, by the low three bits of each nibble.
inline std::uint32_t __byte_perm(std::uint32_t low, std::uint32_t high, std::uint32_t which)
{
    const std::uint64_t both = (static_cast<std::uint64_t>(high) << 32) | low;
    std::uint32_t out = 0;
    for (int i = 0; i < 4; ++i) out |= static_cast<std::uint32_t>((both >> (8 * ((which >> (4 * i)) & 7u))) & 0xffu) << (8 * i);
    return out;
}

inline std::uint32_t __dp4a(std::uint32_t a, std::uint32_t b, std::uint32_t sum)
{
    for (int i = 0; i < 32; i += 8) sum += ((a >> i) & 0xffu) * ((b >> i) & 0xffu);
    return sum;
}

inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }

// The compiler's own binary16, which is not this library's.
#if defined(__aarch64__)
using Binary16 = __fp16;
#else
using Binary16 = _Float16;
#endif
inline Binary16 __ushort_as_half(std::uint16_t bits)
{
    Binary16 half;
    std::memcpy(&half, &bits, sizeof half);
    return half;
}
inline std::uint16_t __half_as_ushort(Binary16 half)
{
    std::uint16_t bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}
inline float __half2float(Binary16 half) { return static_cast<float>(half); }
inline Binary16 __float2half_rn(float x) { return static_cast<Binary16>(x); }
