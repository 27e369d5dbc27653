/* Convolutions of inputs that are mostly zero, such as spikes: only what is not zero is multiplied.
 *
 * Channels last: x is [images][rows][columns][channels], y likewise. Weights and their gradients are PyTorch's: [outputs][inputs][whole
 * rows][whole columns]; the kernel is the part of them that meets the map at some output.
 * REAL comes from the compiler's command line (sparse.py). Vectors are the compiler's own, as wide as the processor's, so that this runs on
 * any of them. Every sum has one order whatever the number of threads: outputs belong to a block of images, gradients of weights to a group
 * of inputs and outputs, and no two threads share one. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef REAL real;
typedef long long integer;
typedef unsigned short channel;

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef real vector __attribute__((vector_size(BYTES), aligned(sizeof(real))));
#define LANES (BYTES / (int)sizeof(real))
#define WIDE (8 * LANES < 64 ? 8 * LANES : 64) /* outputs that eight registers, or 64 numbers, hold */
#define NARROW 32
#define SLICE 16 /* input channels that are summed up by themselves */
#define TILE 16  /* outputs whose weights are laid out at a time */

#define PIXELS 128 /* of a block of images: their inputs, outputs and a tap's weights stay in the nearest caches */
#define GROUP 8   /* input channels whose gradients of weights are computed at a time */

typedef struct {
    integer images, rows, columns, inputs, out_rows, out_columns, outputs;
    integer kernel_rows, kernel_columns, row_stride, column_stride, top, left; /* top, left: padding */
    integer whole_rows, whole_columns, first_row, first_column; /* first: of the kernel in the whole */
} Shape;

static inline integer least(integer a, integer b) { return a < b ? a : b; }

static inline integer images_a_block(const Shape *s) {
    integer pixels = s->rows * s->columns;
    return pixels >= PIXELS ? 1 : PIXELS / pixels;
}

/* Where a tap of the kernel lies among those of the whole. */
static inline integer place(const Shape *s, integer tap) {
    return (s->first_row + tap / s->kernel_columns) * s->whole_columns + s->first_column + tap % s->kernel_columns;
}

/* The kernel as [slices][kernel rows][kernel columns][SLICE][outputs], or NULL without memory. */
static real *laid_out(const Shape *s, const real *w, int threads) {
    integer taps = s->kernel_rows * s->kernel_columns, whole = s->whole_rows * s->whole_columns;
    real *laid = malloc(taps * s->inputs * s->outputs * sizeof *laid);
    if (!laid) return NULL;
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (integer first = 0; first < s->inputs; first += SLICE)
        for (integer from = 0; from < s->outputs; from += TILE)
            for (integer tap = 0; tap < taps; tap++)
                for (integer c = 0; c < SLICE; c++) {
                    const real *in = w + (from * s->inputs + first + c) * whole + place(s, tap);
                    real *out = laid + (first * taps + tap * SLICE + c) * s->outputs + from;
                    for (integer o = 0; o < TILE; o++) out[o] = in[o * s->inputs * whole];
                }
    return laid;
}

/* The channels of a pixel that are not zero, SLICE by SLICE. */
typedef struct {
    channel ids[SLICE]; /* within the slice */
    real values[SLICE];
    channel count;
} Listed;

static void list_pixel(const real *x, integer slices, Listed *listed) {
    for (integer slice = 0; slice < slices; slice++, x += SLICE, listed++) {
        channel count = 0;
        for (int c = 0; c < SLICE; c++) {
            listed->ids[count] = c;
            listed->values[count] = x[c];
            count += x[c] != 0;
        }
        listed->count = count;
    }
}

/* Joins the lists of all pixels that an output sees, with the rows of weights they meet, and returns how many there are. */
static inline integer join(const Shape *s, const Listed *map, integer row, integer column, integer slice, channel *rows, real *values) {
    integer slices = s->inputs / SLICE, count = 0;
    for (integer i = 0; i < s->kernel_rows; i++) {
        integer y = row * s->row_stride - s->top + i;
        if (y < 0 || y >= s->rows) continue;
        for (integer j = 0; j < s->kernel_columns; j++) {
            integer x = column * s->column_stride - s->left + j;
            if (x < 0 || x >= s->columns) continue;
            const Listed *listed = map + (y * s->columns + x) * slices + slice;
            channel first = (i * s->kernel_columns + j) * SLICE;
            /* All of the slice is copied, whatever is listed: that takes no decision. */
            for (int c = 0; c < SLICE; c++) rows[count + c] = first + listed->ids[c];
            for (int c = 0; c < SLICE; c++) values[count + c] = listed->values[c];
            count += listed->count;
        }
    }
    return count;
}

/* y[0..vectors * LANES) += the sum of values times rows of weights. */
static inline __attribute__((always_inline)) void add_weights(
    real *y, const channel *rows, const real *values, integer count, const real *w, integer outputs, const int vectors) {
    vector sum[8];
    for (int v = 0; v < vectors; v++) sum[v] = (vector){0};
    for (integer i = 0; i < count; i++) {
        const real *row = w + rows[i] * outputs;
        vector value = values[i] - (vector){0};
        for (int v = 0; v < vectors; v++) sum[v] += value * *(const vector *)(row + v * LANES);
    }
    for (int v = 0; v < vectors; v++) *(vector *)(y + v * LANES) += sum[v];
}

/* y = x * w; inputs must be a multiple of SLICE, outputs one of NARROW. Sums are taken slice by slice, within it tap by tap, which rounds as
 * oneDNN does. Returns 0, or 1 without memory. */
int forward(const Shape *s, const real *x, const real *w, real *y, int threads) {
    integer block = images_a_block(s), map = s->rows * s->columns, out_map = s->out_rows * s->out_columns, slices = s->inputs / SLICE;
    integer longest = s->kernel_rows * s->kernel_columns * SLICE;
    real *laid = laid_out(s, w, threads);
    if (!laid) return 1;
    int failed = 0;
    #pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Listed *listed = malloc(block * map * slices * sizeof *listed);
        channel *rows = malloc((longest + SLICE) * sizeof *rows);
        real *values = malloc((longest + SLICE) * sizeof *values);
        failed = !listed || !rows || !values;
        #pragma omp for schedule(static)
        for (integer start = 0; start < s->images; start += block) {
            if (failed) continue;
            integer images = least(block, s->images - start);
            for (integer p = 0; p < images * map; p++) list_pixel(x + (start * map + p) * s->inputs, slices, listed + p * slices);
            memset(y + start * out_map * s->outputs, 0, images * out_map * s->outputs * sizeof *y);
            for (integer slice = 0; slice < slices; slice++)
                for (integer q = 0; q < images * out_map; q++) {
                    const Listed *image = listed + q / out_map * map * slices;
                    integer count = join(s, image, q % out_map / s->out_columns, q % s->out_columns, slice, rows, values);
                    real *out = y + (start * out_map + q) * s->outputs;
                    const real *weights = laid + slice * longest * s->outputs;
                    integer from = 0;
                    for (; from + WIDE <= s->outputs; from += WIDE)
                        add_weights(out + from, rows, values, count, weights + from, s->outputs, WIDE / LANES);
                    if (from < s->outputs) add_weights(out + from, rows, values, count, weights + from, s->outputs, NARROW / LANES);
                }
        }
        free(listed);
        free(rows);
        free(values);
    }
    free(laid);
    return failed;
}

/* Pixels of a block fall into classes, so that most pairs of a tap and a pixel that never meet are left out class by class: with strides a tap
 * sees one pixel of each stride, and on the smallest maps every position is a class of its own. */
typedef struct {
    integer block, pixels, classes, taps;
    int *order; /* [pixels] the pixels, class by class */
    int *ends;  /* [classes] where a class ends in `order` */
    int *seen;  /* [taps][pixels] where the output begins that a pixel reaches through a tap, or -1 */
    char *met;  /* [taps][classes] whether any does */
} Plan;

static void release(Plan plan) {
    free(plan.order);
    free(plan.ends);
    free(plan.seen);
    free(plan.met);
}

static Plan planned(const Shape *s) {
    integer map = s->rows * s->columns, out_map = s->out_rows * s->out_columns, tiny = map <= 4;
    Plan plan = {.block = out_map >= PIXELS ? 1 : PIXELS / out_map, .taps = s->kernel_rows * s->kernel_columns};
    plan.pixels = plan.block * map;
    plan.classes = tiny ? map : s->row_stride * s->column_stride;
    plan.order = malloc(plan.pixels * sizeof(int));
    plan.ends = malloc(plan.classes * sizeof(int));
    plan.seen = malloc(plan.taps * plan.pixels * sizeof(int));
    plan.met = calloc(plan.taps * plan.classes, 1);
    if (!plan.order || !plan.ends || !plan.seen || !plan.met) return plan;
    integer end = 0;
    for (integer class = 0; class < plan.classes; class++) {
        for (integer p = 0; p < plan.pixels; p++) {
            integer row = p % map / s->columns, column = p % s->columns;
            integer own = tiny ? p % map : row % s->row_stride * s->column_stride + column % s->column_stride;
            if (own != class) continue;
            plan.order[end++] = p;
            for (integer tap = 0; tap < plan.taps; tap++) {
                integer down = row + s->top - tap / s->kernel_columns, right = column + s->left - tap % s->kernel_columns;
                integer out_row = down / s->row_stride, out_column = right / s->column_stride;
                int meet = down >= 0 && right >= 0 && down % s->row_stride == 0 && right % s->column_stride == 0
                    && out_row < s->out_rows && out_column < s->out_columns;
                integer output = (p / map * s->out_rows + out_row) * s->out_columns + out_column;
                plan.seen[tap * plan.pixels + p] = meet ? output * s->outputs : -1;
                plan.met[tap * plan.classes + class] |= meet;
            }
        }
        plan.ends[class] = end;
    }
    return plan;
}

/* Where the channels of a group are not zero in a block of images, class by class, and their values there. */
typedef struct {
    int *where, *ends; /* [GROUP][pixels], [GROUP][classes + 1] */
    real *values;      /* [GROUP][pixels] */
} Lists;

static void list_channels(const Shape *s, const Plan *plan, const real *x, integer images, integer channels, Lists lists) {
    integer counts[GROUP] = {0}, present = images * s->rows * s->columns, j = 0;
    for (integer c = 0; c < channels; c++) lists.ends[c * (plan->classes + 1)] = 0;
    for (integer class = 0; class < plan->classes; class++) {
        for (; j < plan->ends[class]; j++) {
            integer p = plan->order[j];
            if (p >= present) continue;
            for (integer c = 0; c < channels; c++) {
                real value = x[p * s->inputs + c];
                lists.where[c * plan->pixels + counts[c]] = p;
                lists.values[c * plan->pixels + counts[c]] = value;
                counts[c] += value != 0;
            }
        }
        for (integer c = 0; c < channels; c++) lists.ends[c * (plan->classes + 1) + class + 1] = counts[c];
    }
}

/* `first` or `second`, without a jump: which of the two cannot be foreseen. */
static inline const real *either(const real *first, const real *second, int is_first) {
    uintptr_t a = (uintptr_t)first, b = (uintptr_t)second;
    return (const real *)(b + ((a - b) & -(uintptr_t)is_first));
}

/* total[0..vectors * LANES) += sum over the listed pixels of a channel of its value times the output's gradient that the tap joins it to. */
static inline __attribute__((always_inline)) void add_outputs(
    real *total, const Plan *plan, const Lists *lists, integer c, integer tap, const real *g, const real *zeros, const int vectors) {
    const int *where = lists->where + c * plan->pixels, *ends = lists->ends + c * (plan->classes + 1), *seen = plan->seen + tap * plan->pixels;
    const real *values = lists->values + c * plan->pixels;
    vector sum[8];
    for (int v = 0; v < vectors; v++) sum[v] = (vector){0};
    for (integer class = 0; class < plan->classes; class++)
        if (plan->met[tap * plan->classes + class])
            for (integer i = ends[class]; i < ends[class + 1]; i++) {
                integer output = seen[where[i]];
                const real *row = either(g + output, zeros, output >= 0);
                vector value = values[i] - (vector){0};
                for (int v = 0; v < vectors; v++) sum[v] += value * *(const vector *)(row + v * LANES);
            }
    for (int v = 0; v < vectors; v++) *(vector *)(total + v * LANES) += sum[v];
}

/* Puts the sums [taps][GROUP][outputs] of a group's channels into the gradient of the weights; taps outside the kernel get 0. */
static void put(const Shape *s, const real *sums, real *g_w, integer first, integer channels) {
    integer taps = s->kernel_rows * s->kernel_columns, whole = s->whole_rows * s->whole_columns;
    if (taps < whole)
        for (integer o = 0; o < s->outputs; o++) memset(g_w + (o * s->inputs + first) * whole, 0, channels * whole * sizeof *g_w);
    for (integer from = 0; from < s->outputs; from += TILE)
        for (integer c = 0; c < channels; c++)
            for (integer tap = 0; tap < taps; tap++) {
                const real *in = sums + (tap * GROUP + c) * s->outputs + from;
                real *out = g_w + (from * s->inputs + first + c) * whole + place(s, tap);
                for (integer o = 0; o < TILE; o++) out[o * s->inputs * whole] = in[o];
            }
}

/* The gradient g_w of the weights from that g of y; outputs must be a multiple of 32. Returns 0, or 1 without memory. */
int weight_gradient(const Shape *s, const real *x, const real *g, real *g_w, int threads) {
    Plan plan = planned(s);
    if (!plan.order || !plan.ends || !plan.seen || !plan.met) return release(plan), 1;
    static const real zeros[WIDE];
    integer map = s->rows * s->columns, out_map = s->out_rows * s->out_columns;
    int failed = 0;
    #pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Lists lists = {malloc(GROUP * plan.pixels * sizeof(int)), malloc(GROUP * (plan.classes + 1) * sizeof(int)), malloc(GROUP * plan.pixels * sizeof(real))};
        real *sums = malloc(plan.taps * GROUP * s->outputs * sizeof *sums);
        failed = !lists.where || !lists.ends || !lists.values || !sums;
        #pragma omp for schedule(dynamic)
        for (integer first = 0; first < s->inputs; first += GROUP) {
            if (failed) continue;
            integer channels = least(GROUP, s->inputs - first);
            memset(sums, 0, plan.taps * GROUP * s->outputs * sizeof *sums);
            for (integer start = 0; start < s->images; start += plan.block) {
                list_channels(s, &plan, x + start * map * s->inputs + first, least(plan.block, s->images - start), channels, lists);
                const real *out = g + start * out_map * s->outputs;
                for (integer from = 0; from < s->outputs; from += WIDE)
                    for (integer tap = 0; tap < plan.taps; tap++)
                        for (integer c = 0; c < channels; c++) {
                            real *total = sums + (tap * GROUP + c) * s->outputs + from;
                            if (from + WIDE <= s->outputs) add_outputs(total, &plan, &lists, c, tap, out + from, zeros, WIDE / LANES);
                            else add_outputs(total, &plan, &lists, c, tap, out + from, zeros, NARROW / LANES);
                        }
            }
            put(s, sums, g_w, first, channels);
        }
        free(sums);
        free(lists.where);
        free(lists.ends);
        free(lists.values);
    }
    release(plan);
    return failed;
}
