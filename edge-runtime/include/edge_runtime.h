/* edge-runtime: one backbone, many tasks, from C.
 *
 * A runtime is used by one thread at a time. Functions that return int answer a negative exit code on failure
 * (-2 usage, -3 signature or corruption, -4 incompatible, -1 anything else); edge_runtime_last_error then says
 * what was found, what was expected and what to do. A failed load leaves the running task where it was.
 */
#ifndef EDGE_RUNTIME_H
#define EDGE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct edge_runtime edge_runtime;

typedef struct edge_result {
    int32_t class_index;  /* index of the best class */
    float score;          /* its probability */
    const float *logits;  /* all scores before softmax; valid until the next call with this runtime */
    size_t classes;       /* number of scores */
    int32_t late;         /* 1 when the answer came after the deadline */
    char label[64];       /* label of the best class, UTF-8, cut to fit, ends in a zero */
} edge_result;

/* Maps and checks the backbone file. NULL on failure. */
edge_runtime *edge_runtime_open(const char *backbone, uint32_t threads);

/* Loads a task bundle: its number, from 0. */
int edge_runtime_load(edge_runtime *runtime, const char *path);

/* Makes this task answer the frames to come: 0. Costs a pointer move. */
int edge_runtime_switch(edge_runtime *runtime, int task);

/* Classifies height * width * channels bytes, rows of pixels with 1 (grey) or 3 (RGB) channels: 0. */
int edge_runtime_frame(edge_runtime *runtime, const uint8_t *pixels, size_t width, size_t height,
                       size_t channels, edge_result *result);

/* What went wrong last on this thread; empty when nothing did. Valid until this thread's next call. */
const char *edge_runtime_last_error(void);

/* Frees everything. NULL is fine. */
void edge_runtime_close(edge_runtime *runtime);

#ifdef __cplusplus
}
#endif

#endif
