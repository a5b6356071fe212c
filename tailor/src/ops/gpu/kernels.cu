// Kernels for NVIDIA GPUs, compiled by NVRTC on first use. All tensors are contiguous f32, images (n, c, h,
// w). Arguments: inputs, outputs, then extents. Element-wise kernels have one thread per element of their
// output; reductions use an order that depends on extents alone, so that results are reproducible bit for
// bit.

typedef unsigned int u32;

#define ELEMENT(i, count)                                   \
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;    \
    if (i >= (count)) return

// Sum over a block, returned to each of its threads.
__device__ float block_sum(float v) {
    __shared__ float parts[33];
    for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.f;
        for (u32 i = 0; i < (blockDim.x + 31) / 32; i++) sum += parts[i];
        parts[32] = sum;
    }
    __syncthreads();
    return parts[32];
}

// The gradient `g`, or 0 where a ReLU with output `y` was closed.
__device__ float through(float g, float y, u32 relu) { return relu && !(y > 0.f) ? 0.f : g; }

// The weight of a gate: its entry of alpha, or 1 without one (an index past the end).
__device__ float weight(const float *alpha, u32 gate, u32 gates) { return gate < gates ? alpha[gate] : 1.f; }

// Up to eight terms of a sum as kernel arguments, and the index in alpha of each one's weight.
#define TERMS                                                                                                                  \
    const float *t0, const float *t1, const float *t2, const float *t3, const float *t4, const float *t5, const float *t6, \
        const float *t7
#define GATES u32 g0, u32 g1, u32 g2, u32 g3, u32 g4, u32 g5, u32 g6, u32 g7
#define GATHER_TERMS const float *const terms[8] = {t0, t1, t2, t3, t4, t5, t6, t7}
#define GATHER_GATES const u32 gate[8] = {g0, g1, g2, g3, g4, g5, g6, g7}

extern "C" {

// Windows of a convolution as columns (im2col): (n, c * k * k, oh * ow).
__global__ void unfold(const float *x, float *columns, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 pad, u32 oh, u32 ow) {
    ELEMENT(i, count);
    const u32 ox = i % ow, oy = i / ow % oh, row = i / (oh * ow);
    const u32 kx = row % k, ky = row / k % k, plane = row / (k * k);
    const u32 y = oy * stride + ky - pad, x0 = ox * stride + kx - pad; // above every extent when left of 0
    columns[i] = y < h && x0 < w ? x[(plane * h + y) * w + x0] : 0.f;
}

// The gradient of unfold (col2im): sums the columns' values for each element of x.
__global__ void fold(const float *columns, float *x, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 pad, u32 oh, u32 ow) {
    ELEMENT(i, count);
    const u32 xx = i % w, y = i / w % h, plane = i / (h * w);
    float sum = 0.f;
    for (u32 ky = 0; ky < k; ky++) {
        const u32 oy = y + pad - ky; // times the stride
        if (y + pad < ky || oy % stride != 0 || oy / stride >= oh) continue;
        for (u32 kx = 0; kx < k; kx++) {
            const u32 ox = xx + pad - kx;
            if (xx + pad < kx || ox % stride != 0 || ox / stride >= ow) continue;
            sum += columns[(((plane * k + ky) * k + kx) * oh + oy / stride) * ow + ox / stride];
        }
    }
    x[i] = sum;
}

// Mean, biased and unbiased variance of each channel, (3, c). One block per channel.
__global__ void statistics(const float *x, float *stats, u32 n, u32 c, u32 pixels) {
    const u32 channel = blockIdx.x, count = n * pixels;
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += x[(i / pixels * c + channel) * pixels + i % pixels];
    const float mean = block_sum(sum) / count;
    sum = 0.f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const float d = x[(i / pixels * c + channel) * pixels + i % pixels] - mean;
        sum += d * d;
    }
    const float var = block_sum(sum) / count;
    if (threadIdx.x == 0) {
        stats[channel] = mean;
        stats[c + channel] = var;
        stats[2 * c + channel] = count > 1 ? var * ((float)count / (float)(count - 1)) : var;
    }
}

__global__ void normalise(const float *x, const float *stats, const float *weight, const float *bias, float *y, u32 count, u32 c,
                          u32 pixels, u32 relu, float eps) {
    ELEMENT(i, count);
    const u32 channel = i / pixels % c;
    const float scale = weight[channel] / sqrtf(stats[c + channel] + eps);
    const float value = (x[i] - stats[channel]) * scale + bias[channel];
    y[i] = relu ? fmaxf(value, 0.f) : value;
}

// Gradients of weight and bias, (2, c). One block per channel. A variance times `biased` is the biased one.
__global__ void norm_sums(const float *x, const float *y, const float *g, const float *means, const float *vars, float *sums, u32 n,
                          u32 c, u32 pixels, u32 relu, float biased, float eps) {
    const u32 channel = blockIdx.x, count = n * pixels;
    const float mean = means[channel], inverse = 1.f / sqrtf(vars[channel] * biased + eps);
    float weight = 0.f, bias = 0.f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const u32 at = (i / pixels * c + channel) * pixels + i % pixels;
        const float d = through(g[at], y[at], relu);
        weight += d * (x[at] - mean) * inverse;
        bias += d;
    }
    weight = block_sum(weight);
    bias = block_sum(bias);
    if (threadIdx.x == 0) {
        sums[channel] = weight;
        sums[c + channel] = bias;
    }
}

// Gradient of a batch-norm's input from those sums, times the weight of entry `gate` of alpha.
__global__ void norm_input(const float *x, const float *y, const float *g, const float *means, const float *vars, const float *scale,
                           const float *sums, const float *alpha, float *dx, u32 count, u32 n, u32 c, u32 pixels, u32 relu, u32 gates,
                           u32 gate, float biased, float eps) {
    ELEMENT(i, count);
    const u32 channel = i / pixels % c;
    const float inverse = 1.f / sqrtf(vars[channel] * biased + eps), normal = (x[i] - means[channel]) * inverse;
    const float d = through(g[i], y[i], relu);
    const float within = scale[channel] * inverse * (d - (sums[c + channel] + normal * sums[channel]) / (float)(n * pixels));
    dx[i] = weight(alpha, gate, gates) * within;
}

__global__ void affine(const float *x, const float *scale, const float *shift, float *y, u32 count, u32 c, u32 pixels, u32 relu) {
    ELEMENT(i, count);
    const u32 channel = i / pixels % c;
    const float value = x[i] * scale[channel] + shift[channel];
    y[i] = relu ? fmaxf(value, 0.f) : value;
}

__global__ void affine_input(const float *y, const float *g, const float *scale, float *dx, u32 count, u32 c, u32 pixels, u32 relu) {
    ELEMENT(i, count);
    dx[i] = through(g[i], y[i], relu) * scale[i / pixels % c];
}

// Index in its plane of a window's first maximum.
__device__ u32 largest(const float *plane, u32 oy, u32 ox, u32 h, u32 w, u32 k, u32 stride, u32 pad) {
    u32 best = 0xffffffffu;
    for (u32 ky = 0; ky < k; ky++) {
        const u32 y = oy * stride + ky - pad;
        for (u32 kx = 0; kx < k; kx++) {
            const u32 x = ox * stride + kx - pad;
            if (y < h && x < w && (best == 0xffffffffu || plane[y * w + x] > plane[best])) best = y * w + x;
        }
    }
    return best;
}

__global__ void max_pool(const float *x, float *y, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 pad, u32 oh, u32 ow) {
    ELEMENT(i, count);
    const float *plane = x + i / (oh * ow) * h * w;
    y[i] = plane[largest(plane, i / ow % oh, i % ow, h, w, k, stride, pad)];
}

__global__ void average_pool(const float *x, float *y, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 oh, u32 ow) {
    ELEMENT(i, count);
    const float *corner = x + i / (oh * ow) * h * w + i / ow % oh * stride * w + i % ow * stride;
    float sum = 0.f;
    for (u32 ky = 0; ky < k; ky++)
        for (u32 kx = 0; kx < k; kx++) sum += corner[ky * w + kx];
    y[i] = sum / (k * k);
}

// The first window, along one axis, that contains `at`.
__device__ u32 first_window(u32 at, u32 k, u32 stride) { return at < k ? 0 : (at - k) / stride + 1; }

__global__ void max_pool_input(const float *x, const float *g, float *dx, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 pad, u32 oh,
                               u32 ow) {
    ELEMENT(i, count);
    const u32 xx = i % w, y = i / w % h, at = i / (h * w);
    const float *plane = x + at * h * w;
    float sum = 0.f;
    for (u32 oy = first_window(y + pad, k, stride); oy < oh && oy * stride <= y + pad; oy++)
        for (u32 ox = first_window(xx + pad, k, stride); ox < ow && ox * stride <= xx + pad; ox++)
            if (largest(plane, oy, ox, h, w, k, stride, pad) == y * w + xx) sum += g[(at * oh + oy) * ow + ox];
    dx[i] = sum;
}

__global__ void average_pool_input(const float *g, float *dx, u32 count, u32 h, u32 w, u32 k, u32 stride, u32 oh, u32 ow) {
    ELEMENT(i, count);
    const u32 xx = i % w, y = i / w % h, at = i / (h * w);
    float sum = 0.f;
    for (u32 oy = first_window(y, k, stride); oy < oh && oy * stride <= y; oy++)
        for (u32 ox = first_window(xx, k, stride); ox < ow && ox * stride <= xx; ox++) sum += g[(at * oh + oy) * ow + ox];
    dx[i] = sum / (k * k);
}

// Weighted sum of the first `of` terms.
__global__ void gated(TERMS, const float *alpha, float *y, u32 count, u32 of, u32 gates, u32 relu, GATES) {
    GATHER_TERMS;
    GATHER_GATES;
    ELEMENT(i, count);
    float sum = 0.f;
#pragma unroll
    for (u32 j = 0; j < 8; j++)
        if (j < of) sum += weight(alpha, gate[j], gates) * terms[j][i];
    y[i] = relu ? fmaxf(sum, 0.f) : sum;
}

// Gradients of terms with `of` different gates, (of, count).
__global__ void gated_terms(const float *y, const float *g, const float *alpha, float *d, u32 count, u32 of, u32 gates, u32 relu,
                            GATES) {
    GATHER_GATES;
    ELEMENT(i, count);
    const float passed = through(g[i], y[i], relu);
#pragma unroll
    for (u32 j = 0; j < 8; j++)
        if (j < of) d[j * count + i] = weight(alpha, gate[j], gates) * passed;
}

// Partial dot products of the gradient with each term, (8, blocks).
__global__ void gated_parts(TERMS, const float *y, const float *g, float *parts, u32 count, u32 of, u32 relu) {
    GATHER_TERMS;
    float sums[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const float d = through(g[i], y[i], relu);
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            if (j < of) sums[j] += d * terms[j][i];
    }
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        const float sum = block_sum(sums[j]);
        if (threadIdx.x == 0) parts[j * gridDim.x + blockIdx.x] = sum;
    }
}

// Gradient of alpha from those parts, added to that from other terms. One block.
__global__ void gated_gates(const float *parts, const float *others, float *dalpha, u32 blocks, u32 of, u32 gates, GATES) {
    GATHER_GATES;
    float sums[8];
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        float sum = 0.f;
        for (u32 i = threadIdx.x; i < blocks; i += blockDim.x) sum += parts[j * blocks + i];
        sums[j] = block_sum(sum);
    }
    for (u32 i = threadIdx.x; i < gates; i += blockDim.x) {
        float d = others[i];
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            if (j < of && gate[j] == i) d += sums[j];
        dalpha[i] = d;
    }
}

// Gradients of a gated proxy's norm, from its sums (2, c) for a weight of 1: (2 * c + gates), those of weight
// and bias followed by alpha's, added to `others`. One block.
__global__ void gated_norm(const float *sums, const float *scale, const float *shift, const float *alpha, const float *others,
                           float *d, u32 c, u32 gates, u32 gate) {
    float dot = 0.f;
    for (u32 i = threadIdx.x; i < c; i += blockDim.x) {
        d[i] = alpha[gate] * sums[i];
        d[c + i] = alpha[gate] * sums[c + i];
        dot += sums[i] * scale[i] + sums[c + i] * shift[i];
    }
    dot = block_sum(dot);
    for (u32 i = threadIdx.x; i < gates; i += blockDim.x) d[2 * c + i] = others[i] + (i == gate ? dot : 0.f);
}

// Partial sums of squared differences.
__global__ void square_parts(const float *a, const float *b, float *parts, u32 count) {
    float sum = 0.f;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const float d = a[i] - b[i];
        sum += d * d;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// Sum of the parts divided by `of`. One block.
__global__ void mean_of_parts(const float *parts, float *mean, u32 blocks, u32 of) {
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < blocks; i += blockDim.x) sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *mean = sum / (float)of;
}

// Gradient of the mean squared difference with respect to `a` or, if `relu`, to the input of the ReLU that
// produced it.
__global__ void difference(const float *a, const float *b, const float *g, float *d, u32 count, u32 relu) {
    ELEMENT(i, count);
    d[i] = through(2.f * *g / (float)count * (a[i] - b[i]), a[i], relu);
}

// Softmax of a few numbers. One block.
__global__ void softmax(const float *x, float *y, u32 of) {
    for (u32 i = threadIdx.x; i < of; i += blockDim.x) {
        float largest = x[0], sum = 0.f;
        for (u32 j = 1; j < of; j++) largest = fmaxf(largest, x[j]);
        for (u32 j = 0; j < of; j++) sum += expf(x[j] - largest);
        y[i] = expf(x[i] - largest) / sum;
    }
}

__global__ void softmax_input(const float *y, const float *g, float *dx, u32 of) {
    for (u32 i = threadIdx.x; i < of; i += blockDim.x) {
        float dot = 0.f;
        for (u32 j = 0; j < of; j++) dot += g[j] * y[j];
        dx[i] = y[i] * (g[i] - dot);
    }
}

// Next value of an exponential moving average.
__global__ void follow(const float *kept, const float *seen, float *next, u32 count, float share) {
    ELEMENT(i, count);
    next[i] = kept[i] * (1.f - share) + seen[i] * share;
}

__global__ void sgd_velocity(const float *gradient, const float *parameter, float *velocity, u32 count, float momentum, float decay) {
    ELEMENT(i, count);
    velocity[i] = momentum * velocity[i] + (gradient[i] + decay * parameter[i]);
}

__global__ void sgd_descend(const float *velocity, float *parameter, u32 count, float rate) {
    ELEMENT(i, count);
    parameter[i] -= rate * velocity[i];
}

} // extern "C"
