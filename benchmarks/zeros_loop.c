/* What leaving out products with zeros can gain on a processor with AVX-512, in C, by itself.

       gcc -O3 -march=native benchmarks/zeros_loop.c -o zeros_loop && ./zeros_loop

   It is the loop of the convolution's kernel (kernels/refnet_kernels/conv/cpu_kernel.py): 56 pixels, 36 runs of 64
   products, 3 panels of 2 vectors. Times are those per multiply-add of a vector, divided by the time of one in
   registers. So leaving out products takes (share of inputs that are not 0) times the number printed. */

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 36, PIXELS = 56, PRODUCTS = 64, VECTORS = 6, WIDTH = 32, PANEL = RUNS * PRODUCTS * WIDTH };

static float *weights, *inputs, *sums;
static uint64_t nonzero[RUNS][PIXELS];

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* A run's products of one pixel: each loads its input by an integer register, and six vectors of weights. */
static inline void products(__m512 s[VECTORS], const float *x, const float *w, uint64_t left) {
    for (; left; left &= left - 1) {
        uint64_t k = __builtin_ctzll(left);
        int bits = ((volatile const int *)x)[k];
        __m512 value = _mm512_castsi512_ps(_mm512_set1_epi32(bits));
        __asm__("" : "+v"(value));
        for (int v = 0; v < VECTORS; v++)
            s[v] = _mm512_fmadd_ps(value, _mm512_load_ps(w + v / 2 * (size_t)PANEL + k * WIDTH + v % 2 * 16), s[v]);
    }
}

/* All pixels, run by run. "stays": always the first run's weights, which are then in the first-level cache. */
static void all(int stays) {
    for (int run = 0; run < RUNS; run++)
        for (int p = 0; p < PIXELS; p++) {
            __m512 s[VECTORS];
            for (int v = 0; v < VECTORS; v++)
                s[v] = _mm512_setzero_ps();
            const float *w = weights + (stays ? 0 : (size_t)run * PRODUCTS * WIDTH);
            products(s, inputs + ((size_t)p * RUNS + run) * PRODUCTS, w, nonzero[run][p]);
            float *t = sums + p * VECTORS * 16;
            for (int v = 0; v < VECTORS; v++)
                _mm512_store_ps(t + v * 16, run ? _mm512_add_ps(_mm512_load_ps(t + v * 16), s[v]) : s[v]);
        }
}

static double best(int stays) {
    double least = 1e9;
    for (int round = 0; round < 100; round++) {
        double start = seconds();
        all(stays);
        double took = seconds() - start;
        least = took < least ? took : least;
    }
    return least;
}

static double in_registers(void) {
    double least = 1e9;
    for (int round = 0; round < 400; round++) {
        double start = seconds();
        for (int i = 0; i < 4000; i++)
            __asm__ volatile("vfmadd231ps %%zmm31, %%zmm31, %%zmm0\n vfmadd231ps %%zmm31, %%zmm31, %%zmm1\n"
                             "vfmadd231ps %%zmm31, %%zmm31, %%zmm2\n vfmadd231ps %%zmm31, %%zmm31, %%zmm3\n"
                             "vfmadd231ps %%zmm31, %%zmm31, %%zmm4\n vfmadd231ps %%zmm31, %%zmm31, %%zmm5\n"
                             "vfmadd231ps %%zmm31, %%zmm31, %%zmm6\n vfmadd231ps %%zmm31, %%zmm31, %%zmm7\n"
                             "vfmadd231ps %%zmm31, %%zmm31, %%zmm8\n vfmadd231ps %%zmm31, %%zmm31, %%zmm9\n"
                             ::: "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9");
        double took = (seconds() - start) / 40000;
        least = took < least ? took : least;
    }
    return least;
}

int main(void) {
    weights = aligned_alloc(1 << 21, 3 << 21);
    inputs = aligned_alloc(4096, sizeof(float) * PIXELS * RUNS * PRODUCTS);
    sums = aligned_alloc(4096, sizeof(float) * PIXELS * VECTORS * 16);
    memset(weights, 0, 3 << 21);
    for (size_t i = 0; i < (size_t)PIXELS * RUNS * PRODUCTS; i++)
        inputs[i] = 1;
    double peak = in_registers();
    printf("one multiply-add of 16 numbers in registers: %.3f ns\n", peak * 1e9);
    printf("not zero   weights pass through   weights stay in the first-level cache\n");
    for (int share = 25; share <= 100; share += 25) {
        double count = 0;
        for (int run = 0; run < RUNS; run++)
            for (int p = 0; p < PIXELS; p++) {
                nonzero[run][p] = 0;
                for (int k = 0; k < PRODUCTS; k++)
                    nonzero[run][p] |= (uint64_t)(rand() % 100 < share) << k;
                count += VECTORS * __builtin_popcountll(nonzero[run][p]);
            }
        printf("%7d%%   %20.2f   %37.2f\n", share, best(0) / count / peak, best(1) / count / peak);
    }
    return 0;
}
