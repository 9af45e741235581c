/* See compute_kernels.h. Compiled with SSE2, and with x87 for long double. */
#include "compute_kernels.h"

typedef float v4sf __attribute__((vector_size(16)));
typedef int16_t v8hi __attribute__((vector_size(16)));
typedef uint32_t v4su __attribute__((vector_size(16)));

static uint64_t next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 11;
}

static uint64_t mix(uint64_t hash, uint64_t value) { return (hash ^ value) * UINT64_C(0x100000001B3); }

static uint64_t bits_of_double(double value)
{
    union {
        double d;
        uint64_t u;
    } u = {value};
    return u.u;
}

uint64_t kernel_division(void)
{
    uint64_t state = 1, hash = 7;
    for (int i = 0; i < 500; i++) {
        uint64_t a = next(&state) << 11, b = next(&state) >> (i % 50) | 1;
        hash = mix(hash, a / b);
        hash = mix(hash, a % b);
        hash = mix(hash, (uint64_t)((int64_t)a / (int32_t)(b | 3)));
        hash = mix(hash, (uint32_t)a / (uint16_t)(b | 1));
        uint64_t high = a % b, quotient, remainder;
        __asm__("div %4" : "=a"(quotient), "=d"(remainder) : "a"(state), "d"(high), "r"(b) : "cc");
        hash = mix(hash, quotient ^ remainder << 7);
        hash = mix(hash, (uint64_t)(((unsigned __int128)a * b) >> 64));
    }
    return hash;
}

uint64_t kernel_bits(void)
{
    uint64_t state = 2, hash = 7;
    for (int i = 0; i < 500; i++) {
        uint64_t a = next(&state) << 11 | 1, b = next(&state);
        hash = mix(hash, a << (b & 63) | a >> (-b & 63));
        hash = mix(hash, (uint64_t)((int64_t)a >> (b & 63)));
        hash = mix(hash, (uint64_t)__builtin_ctzll(a | b) << 8 | (uint64_t)__builtin_clzll(a));
        hash = mix(hash, __builtin_bswap64(a) ^ __builtin_bswap32((uint32_t)b));
        uint64_t c = a;
        uint8_t carry;
        __asm__("bts %2, %0; setc %1" : "+r"(c), "=q"(carry) : "r"(b & 63) : "cc");
        hash = mix(hash, c + carry);
        __asm__("shld $13, %1, %0" : "+r"(c) : "r"(b) : "cc");
        hash = mix(hash, c);
        uint32_t d = (uint32_t)a;
        __asm__("shrd %%cl, %1, %0; rcl $3, %0; adc $5, %0; sbb %1, %0"
                : "+r"(d)
                : "r"((uint32_t)b), "c"((int)(b & 31 ? b & 31 : 1))
                : "cc");
        hash = mix(hash, d);
    }
    return hash;
}

uint64_t kernel_crc(void)
{
    uint32_t table[256], crc = 0xFFFFFFFF;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) {
            c = c & 1 ? 0xEDB88320 ^ c >> 1 : c >> 1;
        }
        table[i] = c;
    }
    uint64_t state = 3;
    for (int i = 0; i < 4000; i++) {
        crc = table[(crc ^ next(&state)) & 0xFF] ^ crc >> 8;
    }
    return ~crc;
}

uint64_t kernel_sort(void)
{
    uint32_t words[500];
    uint64_t state = 4, hash = 7;
    for (int i = 0; i < 500; i++) {
        words[i] = (uint32_t)next(&state);
    }
    for (int gap = 250; gap; gap /= 2) {
        for (int i = gap; i < 500; i++) {
            uint32_t word = words[i];
            int j = i;
            for (; j >= gap && words[j - gap] > word; j -= gap) {
                words[j] = words[j - gap];
            }
            words[j] = word;
        }
    }
    for (int i = 0; i < 500; i++) {
        hash = mix(hash, words[i]);
    }
    return hash;
}

uint64_t kernel_sieve(void)
{
    static uint8_t composite[10000];
    uint64_t count = 0, sum = 0;
    for (int i = 2; i < 10000; i++) {
        if (!composite[i]) {
            count++;
            sum += (uint64_t)i;
            for (int j = i * i; j < 10000; j += i) {
                composite[j] = 1;
            }
        }
    }
    return count << 32 | sum;
}

uint64_t kernel_double(void)
{
    uint64_t hash = 7;
    for (int i = 1; i < 200; i++) {
        double x = i * 0.0625, term = 1, sum = 1;
        for (int n = 1; n < 40; n++) {
            term = term * x / n;
            sum += term;
        }
        double root;
        __asm__("sqrtsd %1, %0" : "=x"(root) : "x"(sum));
        hash = mix(hash, bits_of_double(sum));
        hash = mix(hash, bits_of_double(root));
        hash = mix(hash, (uint64_t)(int64_t)(root * 1000));
        hash = mix(hash, (uint64_t)(sum > 1e9 ? 1 : root < 2 ? 2 : 3));
        hash = mix(hash, bits_of_double((double)(float)sum - (double)(int64_t)hash));
    }
    return hash;
}

uint64_t kernel_single(void)
{
    v4sf a = {1, 2, 3, 4}, b = {0.5f, 0.25f, 0.125f, 3};
    uint64_t hash = 7;
    for (int i = 0; i < 200; i++) {
        v4sf c = a * b + a;
        __asm__("sqrtps %1, %0; minps %2, %0" : "=&x"(a) : "x"(c), "x"(b * 100));
        b = b + (v4sf){1, 0.5f, 0.25f, 0.1f} - a / (c + 1);
        union {
            v4sf f;
            uint64_t u[2];
        } u = {a};
        hash = mix(mix(hash, u.u[0]), u.u[1]);
    }
    return hash;
}

uint64_t kernel_extended(void)
{
    long double sum = 0, x = 1;
    uint64_t hash = 7;
    for (int i = 1; i < 200; i++) {
        x = x * 1.0000001L + 1.0L / i;
        long double root = x;
        __asm__("fsqrt" : "+t"(root));
        __asm__("fscale" : "+t"(root) : "u"((long double)(i % 7)));
        sum += root;
        hash = mix(hash, bits_of_double((double)sum));
        hash = mix(hash, (uint64_t)(int64_t)root);
    }
    union {
        long double x;
        uint64_t u[2];
    } u = {sum};
    return mix(hash, u.u[0]);
}

uint64_t kernel_vector(void)
{
    v8hi a = {1, -2, 300, -4000, 30000, -30000, 7, 8}, b = {9, 8, 7, 6, 5, 4, 3, 2};
    uint64_t hash = 7;
    for (int i = 0; i < 300; i++) {
        v8hi c, d;
        v4su e;
        __asm__("movdqa %3, %0; paddsw %4, %0; movdqa %3, %1; pmaddwd %4, %1; pshufd $0x1B, %1, %2; psubusb %4, %1"
                : "=&x"(c), "=&x"(d), "=&x"(e)
                : "x"(a), "x"(b));
        __asm__("punpcklbw %1, %0; packssdw %2, %0; pxor %1, %0; psrlq $3, %0" : "+x"(d) : "x"(c), "x"(e));
        a = c + b;
        b = d;
        union {
            v8hi v;
            uint64_t u[2];
        } u = {a ^ b};
        uint32_t mask;
        __asm__("pmovmskb %1, %0" : "=r"(mask) : "x"(d));
        hash = mix(mix(mix(hash, u.u[0]), u.u[1]), mask);
    }
    return hash;
}

uint64_t kernel_matrix(void)
{
    static double a[16][16], b[16][16];
    uint64_t hash = 7;
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            a[i][j] = i * 0.5 - j;
            b[i][j] = 1.0 / (i + j + 1);
        }
    }
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            double sum = 0;
            for (int k = 0; k < 16; k++) {
                sum += a[i][k] * b[k][j];
            }
            hash = mix(hash, bits_of_double(sum));
        }
    }
    return hash;
}
