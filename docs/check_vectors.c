/* The arithmetic contract in C, checked against the contract vectors:
 *
 *     cc -O2 -ffp-contract=off check_vectors.c -o check_vectors -lm && ./check_vectors < contract-vectors-1.txt
 *
 * With -DDOUBLE it checks the cases in binary64. It is clear, not quick: it shows what each bit depends on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#ifdef DOUBLE
typedef double real;
static const char *format = "binary64";
#else
typedef float real;
static const char *format = "binary32";
#endif

/* A double holds the numbers of both formats; arithmetic is done in `real`, or in double where the contract says so. */
typedef struct { char name[32]; long shape[4], size, last; double *values, *expected; } array;
static array arrays[16];
static struct { char name[32]; long value; } integers[16];
static int array_count, integer_count;

static array *find(const char *prefix, const char *name) {
    char whole[64];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    for (int i = 0; i < array_count; i++)
        if (!strcmp(arrays[i].name, whole)) return &arrays[i];
    return NULL;
}

static double *values(const char *name) {
    array *found = find("", name);
    return found ? found->values : NULL;
}

static long integer(const char *name) {
    for (int i = 0; i < integer_count; i++)
        if (!strcmp(integers[i].name, name)) return integers[i].value;
    fprintf(stderr, "no integer %s\n", name);
    exit(2);
}

static int flag(const char *name) {
    for (int i = 0; i < integer_count; i++)
        if (!strcmp(integers[i].name, name)) return integers[i].value != 0;
    return 0;
}

static real relu(real t) { return t < 0 ? 0 : t; }

static real norm(const char *prefix, real t, long c) {
    real mean = find(prefix, "mean")->values[c], scale = find(prefix, "scale")->values[c];
    return fma((real)(t - mean), scale, (real)find(prefix, "beta")->values[c]);
}

static real scale(double variance, const double *gamma, long c) {
    return (gamma ? gamma[c] : 1.0) / sqrt(variance + *values("epsilon"));
}

static void store(real t, long i, long c) {
    values("out")[i] = t;
    if (values("preact")) values("preact")[i] = relu(norm("next_", t, c));
}

static void conv(void) {
    long height = integer("height"), width = integer("width"), channels = integer("channels");
    long out_height = integer("out_height"), out_width = integer("out_width"), outs = integer("out_channels");
    long kernel_height = integer("kernel_height"), kernel_width = integer("kernel_width");
    const double *x = values("x"), *w = values("weights"), *bias = values("bias"), *shortcut = values("shortcut");
    for (long i = 0; i < find("", "out")->size; i++) {
        long o = i % outs, column0 = i / outs % out_width, row0 = i / outs / out_width % out_height;
        long n = i / outs / out_width / out_height, k = 0;
        real t = 0, s = 0;
        for (long kh = 0; kh < kernel_height; kh++)
            for (long kw = 0; kw < kernel_width; kw++) {
                long row = row0 * integer("stride") + kh * integer("rate") - integer("pad_top");
                long column = column0 * integer("stride") + kw * integer("rate") - integer("pad_left");
                int inside = row >= 0 && row < height && column >= 0 && column < width;
                for (long c = 0; c < channels; c++) {
                    real v = inside ? x[((n * height + row) * width + column) * channels + c] : 0;
                    s = fma(v, (real)w[((kh * kernel_width + kw) * channels + c) * outs + o], s);
                    k = k + 1;
                    if (k % 64 == 0) { t = t + s; s = 0; }
                }
            }
        if (k % 64 != 0) t = t + s;
        if (bias) t = t + (real)bias[o];
        if (values("mean")) t = norm("", t, o);
        if (integer("relu")) t = relu(t);
        if (shortcut) t = (real)shortcut[i] + t;
        if (flag("sum_relu")) t = relu(t);
        store(t, i, o);
    }
}

static void batch_norm(void) {
    for (long i = 0; i < find("", "x")->size; i++) {
        real t = norm("", values("x")[i], i % find("", "x")->last);
        values("out")[i] = integer("relu") ? relu(t) : t;
    }
}

static void norm_scale(void) {
    for (long c = 0; c < find("", "variance")->size; c++)
        values("scale")[c] = scale(values("variance")[c], values("gamma"), c);
}

static void batch_statistics(void) {
    long channels = find("", "x")->last, count = find("", "x")->size / channels;
    for (long c = 0; c < channels; c++) {
        const double *x = values("x") + c;
        double sum = 0, squares = 0;
        for (long i = 0; i < count; i++) sum = sum + x[i * channels];
        double mean = sum / count;
        for (long i = 0; i < count; i++) squares = squares + (x[i * channels] - mean) * (x[i * channels] - mean);
        values("mean")[c] = (real)mean;
        values("scale")[c] = scale(squares / count, values("gamma"), c);
    }
}

/* A channel's rows, one after the other, of x or of squared deviations from a mean. */
static double channel_sum(const double *x, long height, long width, long channels, const double *mean) {
    double sum = 0;
    for (long h = 0; h < height; h++) {
        double row = 0;
        for (long w = 0; w < width; w++) {
            double v = x[(h * width + w) * channels];
            row = row + (mean ? (v - *mean) * (v - *mean) : v);
        }
        sum = sum + row;
    }
    return sum;
}

static void group_norm(void) {
    const long *shape = find("", "x")->shape;
    long height = shape[1], width = shape[2], channels = shape[3], pixels = height * width;
    long each = channels / integer("groups"), count = pixels * each;
    for (long n = 0; n < shape[0]; n++)
        for (long first = 0; first < channels; first += each) {
            const double *x = values("x") + n * pixels * channels;
            double sum = 0, squares = 0;
            for (long c = first; c < first + each; c++) sum = sum + channel_sum(x + c, height, width, channels, NULL);
            double mean = sum / count;
            for (long c = first; c < first + each; c++)
                squares = squares + channel_sum(x + c, height, width, channels, &mean);
            for (long c = first; c < first + each; c++)
                for (long i = n * pixels * channels + c; i < (n + 1) * pixels * channels; i += channels) {
                    real centred = (real)values("x")[i] - (real)mean;
                    real t = fma(centred, scale(squares / count, values("gamma"), c), (real)values("beta")[c]);
                    values("out")[i] = integer("relu") ? relu(t) : t;
                }
        }
}

static void max_pool(void) {
    long height = integer("height"), width = integer("width"), channels = integer("channels");
    long out_height = integer("out_height"), out_width = integer("out_width"), window = integer("window");
    for (long i = 0; i < find("", "out")->size; i++) {
        long c = i % channels, n = i / channels / out_width / out_height;
        long top = i / channels / out_width % out_height * integer("stride") - integer("pad_top");
        long left = i / channels % out_width * integer("stride") - integer("pad_left");
        real m = -INFINITY;
        for (long row = top; row < top + window; row++)
            for (long column = left; column < left + window; column++) {
                int inside = 0 <= row && row < height && 0 <= column && column < width;
                if (!inside && !integer("zero_padding")) continue;
                real v = inside ? values("x")[((n * height + row) * width + column) * channels + c] : 0;
                m = v > m || v != v ? v : m;
            }
        store(m, i, c);
    }
}

static void avg_pool(void) {
    long height = integer("height"), width = integer("width"), channels = integer("channels");
    long out_height = integer("out_height"), out_width = integer("out_width"), window = integer("window");
    for (long i = 0; i < find("", "out")->size; i++) {
        long c = i % channels, n = i / channels / out_width / out_height, count = 0;
        long top = i / channels / out_width % out_height * integer("stride") - integer("pad_top");
        long left = i / channels % out_width * integer("stride") - integer("pad_left");
        double sum = 0;
        for (long row = top; row < top + window; row++)
            for (long column = left; column < left + window; column++) {
                int inside = 0 <= row && row < height && 0 <= column && column < width;
                if (inside) sum = sum + values("x")[((n * height + row) * width + column) * channels + c];
                if (inside || integer("zero_padding")) count++;
            }
        values("out")[i] = (real)(sum / count);
    }
}

static void subsample(void) {
    const long *shape = find("", "x")->shape, *out_shape = find("", "out")->shape;
    long height = shape[1], width = shape[2], channels = shape[3], factor = integer("factor");
    long out_height = out_shape[1], out_width = out_shape[2];
    for (long i = 0; i < find("", "out")->size; i++) {
        long c = i % channels, column = i / channels % out_width * factor;
        long row = i / channels / out_width % out_height * factor, n = i / channels / out_width / out_height;
        values("out")[i] = values("x")[((n * height + row) * width + column) * channels + c];
    }
}

static void residual(void) {
    for (long i = 0; i < find("", "x")->size; i++) {
        real t = (real)values("shortcut")[i] + (real)values("x")[i];
        values("out")[i] = flag("relu") ? relu(t) : t;
    }
}

static void mean(void) {
    long channels = find("", "x")->last, batch = find("", "out")->size / channels;
    long count = find("", "x")->size / batch / channels;
    for (long i = 0; i < batch * channels; i++) {
        double sum = 0;
        for (long pixel = 0; pixel < count; pixel++)
            sum = sum + values("x")[(i / channels * count + pixel) * channels + i % channels];
        values("out")[i] = (real)(sum / count);
    }
}

static double power(double d) {
    if (d != d) return d;
    if (d < -708) return 0;
    double k = floor(d * 0x1.71547652b82fep+0 + 0.5);
    double r = (d - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    double a[14] = {1}, factorial = 1, p;
    for (int n = 1; n <= 13; n++) a[n] = 1 / (factorial = factorial * n);
    p = a[13];
    for (int n = 12; n >= 0; n--) p = p * r + a[n];
    return ldexp(p, (int)k);
}

static void softmax(void) {
    long classes = find("", "x")->last;
    for (long row = 0; row < find("", "x")->size / classes; row++) {
        const double *x = values("x") + row * classes;
        double m = -INFINITY, total = 0;
        for (long i = 0; i < classes; i++) m = x[i] > m ? x[i] : m;
        for (long i = 0; i < classes; i++) total = total + power(x[i] - m);
        for (long i = 0; i < classes; i++) values("out")[row * classes + i] = (real)(power(x[i] - m) / total);
    }
}

static const struct { const char *name; void (*run)(void); } ops[] = {
    {"conv", conv}, {"batch_norm", batch_norm}, {"norm_scale", norm_scale}, {"batch_statistics", batch_statistics},
    {"group_norm", group_norm},
    {"max_pool", max_pool}, {"avg_pool", avg_pool}, {"subsample", subsample}, {"residual", residual}, {"mean", mean},
    {"softmax", softmax},
};

static double read_number(int wide) {
    unsigned long long bits;
    if (scanf("%llx", &bits) != 1) exit(2);
    unsigned narrow = bits;
    float small;
    double number;
    memcpy(&small, &narrow, sizeof small);
    memcpy(&number, &bits, sizeof number);
    return wide ? number : small;
}

static void read_array(int is_output) {
    char kind[16];
    int rank;
    array *a = &arrays[array_count++];
    if (scanf("%15s %31s %d", kind, a->name, &rank) != 3) exit(2);
    a->size = a->last = 1;
    for (int axis = 0; axis < rank && axis < 4; axis++) {
        if (scanf("%ld", &a->shape[axis]) != 1) exit(2);
        a->size *= a->last = a->shape[axis];
    }
    a->values = malloc(a->size * sizeof(double) + 1);
    a->expected = is_output ? malloc(a->size * sizeof(double) + 1) : NULL;
    double *target = is_output ? a->expected : a->values;
    for (long i = 0; i < a->size; i++) target[i] = read_number(!strcmp(kind, "binary64"));
}

/* Run the op of a case, and count the wrong outputs. */
static int check(const char *op, const char *name) {
    int known = 0, wrong = 0;
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(ops[i].name, op)) known = 1, ops[i].run();
    if (!known) return printf("UNKNOWN %s\n", op);
    for (array *a = arrays; a < arrays + array_count; a++)
        for (long i = 0; a->expected && i < a->size; i++) {
            double e = a->expected[i], f = a->values[i];
            if ((e != e && f != f) || (e == f && !signbit(e) == !signbit(f))) continue;
            printf("WRONG %s %s: %s[%ld] is %a, not %a\n", op, name, a->name, i, f, e);
            wrong++;
        }
    return wrong;
}

int main(void) {
    char word[64], op[64] = "", name[64] = "", kind[64] = "";
    int cases = 0, wrong = 0;
    while (scanf("%63s", word) == 1) {
        if (word[0] == '#' || !strcmp(word, "vectors") || !strcmp(word, "contract")) {
            if (scanf("%*[^\n]") < 0) return 2;
        } else if (!strcmp(word, "case")) {
            if (scanf("%63s %63s %63s", op, name, kind) != 3) return 2;
            array_count = integer_count = 0;
        } else if (!strcmp(word, "integers")) {
            if (scanf("%d", &integer_count) != 1) return 2;
            for (int i = 0; i < integer_count; i++)
                if (scanf("%31s %ld", integers[i].name, &integers[i].value) != 2) return 2;
        } else if (!strcmp(word, "end")) {
            if (strcmp(kind, format)) continue;
            cases++;
            wrong += check(op, name) != 0;
        } else {
            read_array(!strcmp(word, "output"));
        }
    }
    printf("%d cases in %s, %d wrong\n", cases, format, wrong);
    return wrong || !cases;
}
