// Element types and memory access that nvcc and a host compiler build alike, so that what runs on the device is tested
// on the CPU. Little-endian.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define EDGESEG_HD __host__ __device__ __forceinline__
#else
#include <cstdio>
#include <cstdlib>
#define EDGESEG_HD inline
#endif

namespace edgeseg {

// ---- elements ----

// An IEEE binary16 by its bits.
struct Half {
    std::uint16_t bits;
};

template <class To, class From>
EDGESEG_HD To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "bits_as changes the type, not the size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

EDGESEG_HD float to_float(float x) { return x; }

// Exact: every binary16 is a float.
EDGESEG_HD float to_float(Half x)
{
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(x.bits));
#else
    const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = x.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_as<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    // The exponents' biases differ by 127 - 15 = 112; the product is exact, subnormals included.
    const float scaled = bits_as<float>(magnitude << 13) * 0x1p112f;
    return bits_as<float>(sign | bits_as<std::uint32_t>(scaled));
#endif
}

// Rounded to the nearest, ties to even.
EDGESEG_HD void from_float(float x, float& out) { out = x; }

EDGESEG_HD void from_float(float x, Half& out)
{
#ifdef __CUDA_ARCH__
    out.bits = __half_as_ushort(__float2half_rn(x));
#else
    const std::uint32_t bits = bits_as<std::uint32_t>(x);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        magnitude = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520, halfway from the largest binary16 to the next power of two
        magnitude = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: the sum with 0.5 rounds to steps of 2^-24, binary16's last
        magnitude = bits_as<std::uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        magnitude = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    out.bits = static_cast<std::uint16_t>(sign | magnitude);
#endif
}

// What elements are compared by; -0 and 0 are equal.
EDGESEG_HD float order(float x) { return x; }
EDGESEG_HD float order(Half x) { return to_float(x); }
EDGESEG_HD std::int32_t order(std::int8_t x) { return x; }

EDGESEG_HD bool is_nan(float x) { return x != x; }
EDGESEG_HD bool is_nan(std::int32_t) { return false; }

// Sums of two binary16 in float round once: a float has more than twice a binary16's bits (Figueroa 1995).
EDGESEG_HD float add(float a, float b) { return a + b; }
EDGESEG_HD Half add(Half a, Half b)
{
    Half sum;
    from_float(to_float(a) + to_float(b), sum);
    return sum;
}

// ---- memory ----

// 2, 4, 8 or 16 bytes in registers.
template <int Bytes>
struct Pack {
    std::uint32_t word[(Bytes + 3) / 4] = {};
};

#ifndef __CUDACC__
// A device faults on these; the host build says so.
inline void require_aligned(const void* at, std::size_t bytes)
{
    if (reinterpret_cast<std::uintptr_t>(at) % bytes != 0) {
        std::fprintf(stderr, "misaligned: %zu bytes at %p\n", bytes, at);
        std::abort();
    }
}
#endif

// One access; `at` must be aligned to its size.
template <int Bytes>
EDGESEG_HD Pack<Bytes> load(const void* at)
{
    Pack<Bytes> pack;
#ifdef __CUDA_ARCH__
    if constexpr (Bytes == 16) {
        const uint4 v = *static_cast<const uint4*>(at);
        pack.word[0] = v.x, pack.word[1] = v.y, pack.word[2] = v.z, pack.word[3] = v.w;
    } else if constexpr (Bytes == 8) {
        const uint2 v = *static_cast<const uint2*>(at);
        pack.word[0] = v.x, pack.word[1] = v.y;
    } else if constexpr (Bytes == 4) {
        pack.word[0] = *static_cast<const std::uint32_t*>(at);
    } else {
        pack.word[0] = *static_cast<const std::uint16_t*>(at);
    }
#else
#ifndef __CUDACC__
    require_aligned(at, Bytes);
#endif
    std::memcpy(pack.word, at, Bytes);
#endif
    return pack;
}

template <int Bytes>
EDGESEG_HD void store(void* at, const Pack<Bytes>& pack)
{
#ifdef __CUDA_ARCH__
    if constexpr (Bytes == 16) {
        *static_cast<uint4*>(at) = make_uint4(pack.word[0], pack.word[1], pack.word[2], pack.word[3]);
    } else if constexpr (Bytes == 8) {
        *static_cast<uint2*>(at) = make_uint2(pack.word[0], pack.word[1]);
    } else if constexpr (Bytes == 4) {
        *static_cast<std::uint32_t*>(at) = pack.word[0];
    } else {
        *static_cast<std::uint16_t*>(at) = static_cast<std::uint16_t>(pack.word[0]);
    }
#else
#ifndef __CUDACC__
    require_aligned(at, Bytes);
#endif
    std::memcpy(at, pack.word, Bytes);
#endif
}

template <class T>
EDGESEG_HD T from_bits(std::uint32_t bits)
{
    if constexpr (sizeof(T) == 4) {
        return bits_as<T>(bits);
    } else if constexpr (sizeof(T) == 2) {
        return bits_as<T>(static_cast<std::uint16_t>(bits));
    } else {
        return static_cast<T>(static_cast<std::uint8_t>(bits));
    }
}

template <class T>
EDGESEG_HD std::uint32_t to_bits(T x)
{
    if constexpr (sizeof(T) == 4) {
        return bits_as<std::uint32_t>(x);
    } else if constexpr (sizeof(T) == 2) {
        return bits_as<std::uint16_t>(x);
    } else {
        return static_cast<std::uint8_t>(x);
    }
}

// Element `i` of a pack. In unrolled loops `i` is a constant, and the pack stays in registers.
template <class T, int Bytes>
EDGESEG_HD T lane(const Pack<Bytes>& pack, int i)
{
    constexpr int per_word = 4 / static_cast<int>(sizeof(T));
    return from_bits<T>(pack.word[i / per_word] >> (8 * static_cast<int>(sizeof(T)) * (i % per_word)));
}

// Put element `i` into a pack that has zero there.
template <class T, int Bytes>
EDGESEG_HD void set_lane(Pack<Bytes>& pack, int i, T x)
{
    constexpr int per_word = 4 / static_cast<int>(sizeof(T));
    pack.word[i / per_word] |= to_bits(x) << (8 * static_cast<int>(sizeof(T)) * (i % per_word));
}

// The word `shift` bits (0 to 31) into two.
EDGESEG_HD std::uint32_t funnel(std::uint32_t low, std::uint32_t high, std::uint32_t shift)
{
#ifdef __CUDA_ARCH__
    return __funnelshift_r(low, high, shift);
#else
    return static_cast<std::uint32_t>(((static_cast<std::uint64_t>(high) << 32) | low) >> shift);
#endif
}

// The bytes that may be read: those of one tensor.
struct Span {
    std::uintptr_t begin, end;

    // Whether every 16-byte block that the 16 bytes at `at` touch is inside.
    EDGESEG_HD bool has_blocks(const void* at) const
    {
        const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(at), block = address & ~std::uintptr_t{15};
        return block >= begin && block + (block == address ? 16 : 32) <= end;
    }
};

// 16 bytes at any address, by aligned 16-byte accesses: rows whose length is no multiple of 16 bytes are read as wide as
// the others. Neighbouring threads share the blocks, so the second one comes from the cache. Check has_blocks first.
EDGESEG_HD Pack<16> load_any(const void* at)
{
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(at);
    const std::uint32_t shift = static_cast<std::uint32_t>(address & 15u);
    const char* block = static_cast<const char*>(at) - shift;
    const Pack<16> low = load<16>(block);
    if (shift == 0) return low;
    const Pack<16> high = load<16>(block + 16);
    // Two words, one word, then bits: every index is a constant, so nothing leaves the registers.
    const bool two = (shift & 8u) != 0, one = (shift & 4u) != 0;
    const std::uint32_t bits = (shift & 3u) * 8u;
    const std::uint32_t* a = low.word;
    const std::uint32_t* b = high.word;
    const std::uint32_t m[6] = {two ? a[2] : a[0], two ? a[3] : a[1], two ? b[0] : a[2],
                                two ? b[1] : a[3], two ? b[2] : b[0], two ? b[3] : b[1]};
    Pack<16> out;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t first = one ? m[i + 1] : m[i];
        const std::uint32_t second = one ? m[i + 2] : m[i + 1];
        out.word[i] = funnel(first, second, bits);
    }
    return out;
}

// ---- bytes as numbers ----

// A float whose lowest mantissa bit is 1: whole numbers below 2^23 are added to it, and stand in its bits.
constexpr float two_to_23 = 8388608.f;
constexpr std::uint32_t two_to_23_bits = 0x4b000000u;

// Byte `i` of a word, less `zero`, a small whole number. A device has no fast instruction that converts a byte, but one
// that puts it into the bits of 2^23.
EDGESEG_HD float byte_of(std::uint32_t word, std::uint32_t i, float zero = 0.f)
{
#ifdef __CUDA_ARCH__
    return bits_as<float>(__byte_perm(word, two_to_23_bits, 0x7650u | i)) - (two_to_23 + zero);
#else
    return static_cast<float>((word >> (8 * i)) & 0xffu) - zero;
#endif
}

// The nearest whole number of 0 to 2^22, in the low bits; of two, the even one, as OpenCV rounds blends and colours.
EDGESEG_HD std::uint32_t rounded(float x) { return bits_as<std::uint32_t>(x + two_to_23); }

// The low bytes of four words in one.
EDGESEG_HD std::uint32_t low_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d)
{
#ifdef __CUDA_ARCH__
    return __byte_perm(__byte_perm(a, b, 0x0040u), __byte_perm(c, d, 0x0040u), 0x5410u);
#else
    return (a & 0xffu) | (b & 0xffu) << 8 | (c & 0xffu) << 16 | d << 24;
#endif
}

// The sum of four products of bytes, on top of `sum`.
EDGESEG_HD std::uint32_t dot(std::uint32_t a, std::uint32_t b, std::uint32_t sum)
{
#ifdef __CUDA_ARCH__
    return __dp4a(a, b, sum);
#else
    for (int i = 0; i < 32; i += 8) sum += ((a >> i) & 0xffu) * ((b >> i) & 0xffu);
    return sum;
#endif
}

// Rounded once, wherever it is compiled.
EDGESEG_HD float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }

// The same between 0 and 1, by an instruction of the device's.
EDGESEG_HD float multiply_add_saturated(float a, float b, float c)
{
#ifdef __CUDA_ARCH__
    return __saturatef(fmaf(a, b, c));
#else
    const float x = fmaf(a, b, c);
    return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f;
#endif
}

// Quotients of numbers below 2^31 by one divisor, by a multiplication: a device has no instruction that divides.
// Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, theorem 4.2 with N = 31.
struct Divisor {
    std::uint32_t multiplier, shift;

    // Of 1 to 2^31.
    static Divisor of(std::uint32_t divisor)
    {
        std::uint32_t shift = 31;
        while ((std::uint64_t{1} << (shift - 31)) < divisor) ++shift;
        return {static_cast<std::uint32_t>(((std::uint64_t{1} << shift) + divisor - 1) / divisor), shift};
    }
    EDGESEG_HD std::uint32_t divide(std::uint32_t number) const
    {
        return static_cast<std::uint32_t>((static_cast<std::uint64_t>(number) * multiplier) >> shift);
    }
};

}  // namespace edgeseg
