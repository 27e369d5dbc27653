/* BatchNorm in training, channels last: x is [rows][channels]. Sums are in double, of PARTS parts whatever the number of threads. */

#include <stdlib.h>

typedef long long integer;

#define PARTS 64

/* sums[0..channels) = the sum over rows of FIRST, and behind it that of SECOND; both know the place i and the channel c. */
#define SUM(FIRST, SECOND)                                                                      \
    double *parts = calloc(PARTS * 2 * channels, sizeof *parts);                                \
    if (!parts) return 1;                                                                       \
    _Pragma("omp parallel for num_threads(threads) schedule(static)")                           \
    for (integer part = 0; part < PARTS; part++) {                                              \
        double *first = parts + part * 2 * channels, *second = first + channels;                \
        for (integer row = part * rows / PARTS; row < (part + 1) * rows / PARTS; row++)         \
            for (integer c = 0; c < channels; c++) {                                            \
                integer i = row * channels + c;                                                 \
                first[c] += FIRST;                                                              \
                second[c] += SECOND;                                                            \
            }                                                                                   \
    }                                                                                           \
    for (integer c = 0; c < 2 * channels; c++) sums[c] = 0;                                     \
    for (integer part = 0; part < PARTS; part++)                                                \
        for (integer c = 0; c < 2 * channels; c++) sums[c] += parts[part * 2 * channels + c];   \
    free(parts);                                                                                \
    return 0;

/* Of x, and of its square: in double the variance that follows has all of float's digits, unless it is 1e-8 of the mean's square or less. */
int moments(const float *x, double *sums, integer rows, integer channels, int threads) {
    SUM(x[i], (double)x[i] * x[i])
}

/* Of g, and of g (x - mean). */
int gradient_moments(const float *x, const float *g, const float *mean, double *sums, integer rows, integer channels, int threads) {
    SUM(g[i], g[i] * (x[i] - mean[c]))
}

/* y = x scale + shift. */
int normalise(const float *x, const float *scale, const float *shift, float *y, integer rows, integer channels, int threads) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (integer row = 0; row < rows; row++)
        for (integer c = 0; c < channels; c++) y[row * channels + c] = x[row * channels + c] * scale[c] + shift[c];
    return 0;
}

/* g_x = (g - g_mean - (x - mean) along) scale. */
int input_gradient(const float *x, const float *g, const float *mean, const float *g_mean, const float *along, const float *scale, float *g_x,
                   integer rows, integer channels, int threads) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (integer row = 0; row < rows; row++)
        for (integer c = 0; c < channels; c++) {
            integer i = row * channels + c;
            g_x[i] = (g[i] - g_mean[c] - (x[i] - mean[c]) * along[c]) * scale[c];
        }
    return 0;
}
