/* One layer of spiking neurons over all time steps: x and spikes are [steps][n], potentials [n].
 *
 * CHARGE, TO_INPUT, TO_STATE and, where the leak is learnt, TO_LEAK come from the compiler's command line (fused.py). */

#define BLOCK 1024 /* neurons whose whole history stays in the processor's cache */
#define MANY 32768 /* fewer elements are not worth waking threads for */
typedef long long integer;

static inline float spike(float u, float threshold) { return u >= threshold ? 1.0f : 0.0f; }

static inline float reset(float u, float threshold, float rest, int hard) {
    return u >= threshold ? (hard ? rest : u - threshold) : u;
}

static inline float charge(float x, float v, float rest, float leak) { return CHARGE; }

void forward(const float *x, const float *v_first, float *spikes, float *v_last, integer steps, integer n,
             float leak, float threshold, float rest, int hard, int threads) {
    #pragma omp parallel for num_threads(threads) if (steps * n > MANY)
    for (integer start = 0; start < n; start += BLOCK) {
        integer count = n - start < BLOCK ? n - start : BLOCK;
        float v[BLOCK];
        for (integer i = 0; i < count; i++) v[i] = v_first[start + i];
        for (integer t = 0; t < steps; t++) {
            const float *in = x + t * n + start;
            float *out = spikes + t * n + start;
            for (integer i = 0; i < count; i++) {
                float u = charge(in[i], v[i], rest, leak);
                out[i] = spike(u, threshold);
                v[i] = reset(u, threshold, rest, hard);
            }
        }
        for (integer i = 0; i < count; i++) v_last[start + i] = v[i];
    }
}

/* From the gradients at spikes and v_last, with the surrogate height / (1 + (slope (u - threshold))^2). g_leak is per neuron. */
void backward(const float *x, const float *v_first, const float *g_spikes, const float *g_v_last,
              float *g_x, float *g_v_first, float *g_leak, integer steps, integer n,
              float leak, float threshold, float rest, int hard, int threads, int detach, float slope, float height) {
    #pragma omp parallel for num_threads(threads) if (steps * n > MANY)
    for (integer start = 0; start < n; start += BLOCK) {
        integer count = n - start < BLOCK ? n - start : BLOCK;
        float v[BLOCK], carried[BLOCK];
        for (integer i = 0; i < count; i++) v[i] = v_first[start + i];
        for (integer i = 0; i < count; i++) carried[i] = g_v_last[start + i];
        /* g_x holds the potentials before the reset until the gradients take their place. */
        for (integer t = 0; t < steps; t++) {
            const float *in = x + t * n + start;
            float *potential = g_x + t * n + start;
            for (integer i = 0; i < count; i++) {
                float u = charge(in[i], v[i], rest, leak);
                potential[i] = u;
                v[i] = reset(u, threshold, rest, hard);
            }
        }
        for (integer t = steps - 1; t >= 0; t--) {
            const float *in = x + t * n + start, *g_out = g_spikes + t * n + start;
            float *g_in = g_x + t * n + start;
            for (integer i = 0; i < count; i++) {
                float u = g_in[i], z = (u - threshold) * slope, surrogate = height * (1.0f / (1.0f + z * z));
                float at_spike = g_out[i], kept = hard ? 1.0f - spike(u, threshold) : 1.0f;
                if (!detach) at_spike = hard ? at_spike - carried[i] * u + carried[i] * rest : at_spike - carried[i] * threshold;
                float g = at_spike * surrogate + carried[i] * kept;
#ifdef TO_LEAK
                float x = in[i], v = t ? reset(g_in[i - n], threshold, rest, hard) : v_first[start + i];
                g_leak[start + i] += g * TO_LEAK;
#endif
                g_in[i] = TO_INPUT;
                carried[i] = TO_STATE;
            }
        }
        for (integer i = 0; i < count; i++) g_v_first[start + i] = carried[i];
    }
}
