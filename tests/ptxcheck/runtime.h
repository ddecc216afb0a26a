/* What a translated kernel needs: its memory, with a check of every access, and the loops over blocks and threads.

Addresses are made up. Each array begins at a multiple of 2^40 and each shared variable at a multiple of 2^20, so that an
access outside one of them is never inside another. A shared variable is aligned to what it declares and to no more. */

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_BITS 40
#define SHARED_BITS 20
#define SHARED_WINDOW (1ull << 60)
#define LOCAL_WINDOW (1ull << 61)
#define IN_FLIGHT UINT32_MAX
#define MANY 2047u
#define COPIES 128
#define FUEL 100000000u

enum { BOUNDS = 1, READ_ONLY, ALIGNMENT, RACE, ASYNC, UNINITIALISED, BARRIER, TRAP, DIVISION, ENDLESS, COPIES_FULL };
enum { GLOBAL = 1, SHARED, LOCAL, REGISTER };

typedef struct { char *data; uint64_t bytes; uint32_t writable; } Array;

/* Who touched a word of shared memory last, and where: an interval between barriers (from bit 11) and a thread. */
typedef struct { uint32_t writer, reader, writer_line, reader_line; } Shadow;
typedef struct { char *data; uint64_t start, bytes; Shadow *shadow; } Shared;

typedef struct { uint64_t from, to; uint32_t bytes, used, group, line; } Copy;

typedef struct {
    uint32_t resume, tid[3], me, groups, copies;
    Copy copy[COPIES];
    Saved saved;
    char local[LOCAL_BYTES + 1] __attribute__((aligned(16)));
    uint8_t written[LOCAL_BYTES + 1];
} Thread;

typedef struct { uint32_t kind, space, line, bytes, thread, other, other_line, block[3]; uint64_t address; } Problem;

typedef struct {
    Array *arrays; uint64_t array_count;
    Shared *shared; uint64_t shared_count;
    const char *parameters;
    uint32_t ntid[3], nctaid[3], ctaid[3], shared_bytes, interval;
    Problem problem, doubt;
    jmp_buf stop;
} Context;

static uint32_t run_thread(Context *c, Thread *t);

static void __attribute__((noinline, cold, noreturn))
fail(Context *c, Thread *t, uint32_t kind, uint32_t space, uint64_t address, uint32_t bytes, uint32_t line) {
    c->problem.kind = kind, c->problem.space = space, c->problem.address = address, c->problem.bytes = bytes;
    c->problem.line = line, c->problem.thread = t->me & MANY;
    longjmp(c->stop, 1);
}

/* What may have a deeper cause is told only when the interval is over: a word that nobody has written is a race if another
   thread writes it before the next barrier, and a race can come from a barrier that other threads do not meet. */
static void __attribute__((noinline, cold))
doubt(Context *c, Thread *t, const Shadow *s, int race, uint64_t address, uint32_t line) {
    uint32_t kind = race ? RACE : UNINITIALISED;
    int by_writer = s->writer >= c->interval && s->writer != t->me;
    if (race && by_writer && s->writer == IN_FLIGHT) kind = ASYNC;
    if (c->doubt.kind && (kind == UNINITIALISED || c->doubt.kind != UNINITIALISED)) return;
    c->doubt = c->problem;
    c->doubt.kind = kind, c->doubt.space = SHARED, c->doubt.address = address, c->doubt.bytes = 4;
    c->doubt.line = line, c->doubt.thread = t->me & MANY;
    c->doubt.other = (by_writer ? s->writer : s->reader) & MANY;
    c->doubt.other_line = by_writer ? s->writer_line : s->reader_line;
}

static inline __attribute__((always_inline)) char *
global(Context *c, Thread *t, uint64_t address, uint32_t bytes, uint32_t line, int write) {
    uint64_t index = (address >> ARRAY_BITS) - 1, offset = address & ((1ull << ARRAY_BITS) - 1);
    if (__builtin_expect(index >= c->array_count || offset + bytes > c->arrays[index].bytes, 0))
        fail(c, t, BOUNDS, GLOBAL, address, bytes, line);
    if (__builtin_expect(address & (bytes - 1), 0)) fail(c, t, ALIGNMENT, GLOBAL, address, bytes, line);
    if (write && __builtin_expect(!c->arrays[index].writable, 0)) fail(c, t, READ_ONLY, GLOBAL, address, bytes, line);
    return c->arrays[index].data + offset;
}

static inline __attribute__((always_inline)) Shared *
shared_variable(Context *c, Thread *t, uint64_t address, uint32_t bytes, uint32_t line) {
    uint64_t index = (address >> SHARED_BITS) - 1;
    Shared *variable = c->shared + index;
    if (__builtin_expect(index >= c->shared_count || address - variable->start >= variable->bytes
                         || bytes > variable->bytes - (address - variable->start), 0))
        fail(c, t, BOUNDS, SHARED, address, bytes, line);
    if (__builtin_expect(address & (bytes - 1), 0)) fail(c, t, ALIGNMENT, SHARED, address, bytes, line);
    return variable;
}

static inline __attribute__((always_inline)) char *
shared(Context *c, Thread *t, uint64_t address, uint32_t bytes, uint32_t line, int write) {
    Shared *variable = shared_variable(c, t, address, bytes, line);
    uint64_t offset = address - variable->start;
    for (uint32_t word = 0; word < (bytes + 3) / 4; word++) {
        Shadow *s = variable->shadow + offset / 4 + word;
        int race = s->writer >= c->interval && s->writer != t->me;
        if (write) race |= s->reader >= c->interval && s->reader != t->me;
        if (__builtin_expect(race || (!write && !s->writer), 0)) doubt(c, t, s, race, address + 4 * word, line);
        if (write) {
            s->writer = t->me, s->writer_line = line;
        } else {
            s->reader = s->reader < c->interval || s->reader == t->me ? t->me : c->interval + MANY;
            s->reader_line = line;
        }
    }
    return variable->data + offset;
}

static inline char *local(Context *c, Thread *t, uint64_t address, uint32_t bytes, uint32_t line, int write) {
    if (address >= LOCAL_BYTES || bytes > LOCAL_BYTES - address) fail(c, t, BOUNDS, LOCAL, address, bytes, line);
    if (address & (bytes - 1)) fail(c, t, ALIGNMENT, LOCAL, address, bytes, line);
    for (uint32_t i = 0; i < bytes; i++) {
        if (write) t->written[address + i] = 1;
        else if (!t->written[address + i]) fail(c, t, UNINITIALISED, LOCAL, address, bytes, line);
    }
    return t->local + address;
}

static inline char *generic(Context *c, Thread *t, uint64_t address, uint32_t bytes, uint32_t line, int write) {
    if (address >= LOCAL_WINDOW) return local(c, t, address - LOCAL_WINDOW, bytes, line, write);
    if (address >= SHARED_WINDOW) return shared(c, t, address - SHARED_WINDOW, bytes, line, write);
    return global(c, t, address, bytes, line, write);
}

/* cp.async: the copy is made by the wait_group that waits for it, and until then nothing may touch its destination. */
static void copy_async(Context *c, Thread *t, uint64_t to, uint64_t from, uint32_t bytes, uint32_t used, uint32_t line) {
    if (used > bytes || t->copies == COPIES) fail(c, t, COPIES_FULL, SHARED, to, bytes, line);
    if (used) global(c, t, from, 1, line, 0), global(c, t, from + used - 1, 1, line, 0);
    if (from & (bytes - 1)) fail(c, t, ALIGNMENT, GLOBAL, from, bytes, line);
    Shared *variable = shared_variable(c, t, to, bytes, line);
    shared(c, t, to, bytes, line, 1);
    for (uint32_t word = 0; word < bytes / 4; word++)
        variable->shadow[(to - variable->start) / 4 + word].writer = IN_FLIGHT;
    t->copy[t->copies++] = (Copy){from, to, bytes, used, t->groups, line};
}

static void wait_group(Context *c, Thread *t, int64_t left) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->copies; i++) {
        Copy *copy = t->copy + i;
        if (copy->group + left >= t->groups) { t->copy[kept++] = *copy; continue; }
        Shared *variable = shared_variable(c, t, copy->to, copy->bytes, copy->line);
        char *data = variable->data + (copy->to - variable->start);
        memset(data, 0, copy->bytes);
        if (copy->used) memcpy(data, global(c, t, copy->from, 1, copy->line, 0), copy->used);
        for (uint32_t word = 0; word < copy->bytes / 4; word++)
            variable->shadow[(copy->to - variable->start) / 4 + word].writer = t->me;
    }
    t->copies = kept;
}

/* Numbers. */
static inline float as_f32(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline double as_f64(uint64_t bits) { double x; memcpy(&x, &bits, 8); return x; }
static inline uint32_t as_u32(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
static inline uint64_t as_u64(double x) { uint64_t bits; memcpy(&bits, &x, 8); return bits; }

/* PTX's min and max: a NaN loses, and -0 is less than +0. */
#define MIN_MAX(type, name, sign) \
    static inline type min_##name(type a, type b) { \
        return a != a ? b : b != b ? a : a < b ? a : b < a ? b : sign(a) ? a : b; } \
    static inline type max_##name(type a, type b) { \
        return a != a ? b : b != b ? a : a > b ? a : b > a ? b : sign(a) ? b : a; }
MIN_MAX(float, f32, signbit)
MIN_MAX(double, f64, signbit)

/* Conversions of a rounded number saturate; a NaN is 0, or for 64 bits the most significant bit. */
#define SATURATE(type, name, least, most, nan) \
    static inline type to_##name(double x) { \
        return x != x ? (type)(nan) : x <= (double)(least) ? (type)(least) : x >= (double)(most) ? (type)(most) : (type)x; }
SATURATE(int32_t, s32, INT32_MIN, INT32_MAX, 0)
SATURATE(uint32_t, u32, 0, UINT32_MAX, 0)
SATURATE(int64_t, s64, INT64_MIN, INT64_MAX, INT64_MIN)
SATURATE(uint64_t, u64, 0, UINT64_MAX, 1ull << 63)

#define SHIFT_LEFT(a, b) ((b) >= 8 * sizeof(a) ? 0 : (a) << (b))
#define SHIFT_RIGHT(a, b) ((b) >= 8 * sizeof(a) ? ((a) < 0 ? -1 : 0) : (a) >> (b))
#define MASK(type, position, length) SHIFT_LEFT((type)(SHIFT_LEFT((type)1, length) - 1), position)

#define DIVISION_OF(type, name) \
    static inline type div_##name(Context *c, Thread *t, type a, type b, uint32_t line) { \
        if (!b) fail(c, t, DIVISION, REGISTER, 0, 0, line); \
        return b == (type)-1 && (type)-1 < 0 ? (type)(0 - (uint64_t)a) : a / b; } \
    static inline type rem_##name(Context *c, Thread *t, type a, type b, uint32_t line) { \
        return (type)(a - (uint64_t)b * div_##name(c, t, a, b, line)); }
DIVISION_OF(int32_t, s32)
DIVISION_OF(uint32_t, u32)
DIVISION_OF(int64_t, s64)
DIVISION_OF(uint64_t, u64)

/* Each thread up to its next barrier, in the given order, until all have finished. */
static void run_block(Context *c, Thread *threads, uint32_t count, const uint32_t *order, const uint32_t *barrier_lines) {
    for (uint32_t i = 0; i < count; i++) {
        Thread *t = threads + i;
        t->resume = t->groups = t->copies = 0;
        t->tid[0] = i % c->ntid[0], t->tid[1] = i / c->ntid[0] % c->ntid[1], t->tid[2] = i / c->ntid[0] / c->ntid[1];
        memset(t->written, 0, LOCAL_BYTES);
    }
    for (uint64_t i = 0; i < c->shared_count; i++) {
        memset(c->shared[i].shadow, 0, sizeof(Shadow) * (c->shared[i].bytes / 4));
        memset(c->shared[i].data, 0xFF, c->shared[i].bytes);  /* NaN */
    }
    c->interval = 0;
    do {
        c->interval += MANY + 1;
        for (uint32_t i = 0; i < count; i++) {
            Thread *t = threads + order[i], *first = threads + order[0];
            t->me = c->interval + order[i];
            t->resume = run_thread(c, t);
            if (t->resume != first->resume) {
                c->problem.other = order[0];
                c->problem.other_line = barrier_lines[first->resume];
                fail(c, t, BARRIER, SHARED, 0, 0, barrier_lines[t->resume]);
            }
        }
        if (c->doubt.kind) { c->problem = c->doubt; longjmp(c->stop, 1); }
    } while (threads[0].resume);
}

static int run_blocks(Context *c, Thread *threads, const uint32_t *blocks, uint64_t block_count, const uint32_t *order,
                      const uint32_t *barrier_lines) {
    if (setjmp(c->stop)) return 1;
    for (uint64_t i = 0; i < block_count; i++) {
        uint32_t b = blocks[i];
        c->ctaid[0] = b % c->nctaid[0], c->ctaid[1] = b / c->nctaid[0] % c->nctaid[1];
        c->ctaid[2] = b / c->nctaid[0] / c->nctaid[1];
        memcpy(c->problem.block, c->ctaid, sizeof c->ctaid);
        run_block(c, threads, c->ntid[0] * c->ntid[1] * c->ntid[2], order, barrier_lines);
    }
    return 0;
}
