/* edge-runtime: one backbone, many tasks, from C.
 *
 * Typical use: edge_runtime_open, edge_runtime_load, edge_runtime_switch, then edge_runtime_frame per image.
 *
 * A runtime may be used by one thread at a time; only a switcher is safe to use from others. Functions that
 * return int return a negative number on failure (EDGE_USAGE etc. below); edge_runtime_last_error then says
 * what was found, what was expected and what to do. A failed or cancelled load leaves the running task in
 * place.
 *
 * Paths are UTF-8. The backbone file is memory-mapped: replace it by renaming another file over it (mv),
 * never by writing into it (cp), which changes the results of running programs or kills them with SIGBUS.
 * Task bundles are read and verified when loaded; a half-written one is refused.
 *
 * A task keeps its number for the lifetime of the runtime. Tasks are identified by the name in their bundle:
 * loading or streaming a bundle with a known name replaces that task under its number, from the next frame on
 * if it is running. A prefetched bundle gets a number of its own, by its path, and an idle task of the same
 * name is removed when it becomes resident; prefetching a path whose task is already resident does nothing,
 * even if the file has changed.
 *
 * The library's threads (frame workers, the loader) inherit the signal mask: block the signals they must not
 * handle before edge_runtime_open and the first load, which start them.
 *
 * Link with libedge_runtime.a (cargo build --release -p edge-runtime) and, on Linux, -lpthread -ldl -lm. Use
 * the --release build, in which a panic becomes an error: in the --profile lean build, meant for the
 * command-line program, a panic aborts the process. The archive contains zstd; a program that links another
 * zstd should use the shared library, which hides its own copy (cargo rustc --release -p edge-runtime --lib
 * --crate-type cdylib).
 */
#ifndef EDGE_RUNTIME_H
#define EDGE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this header; edge_runtime_version() returns that of the library. */
#define EDGE_RUNTIME_VERSION "0.1.0"

/* Error codes. */
#define EDGE_OTHER (-1)         /* a file or system error; edge_runtime_last_error says which */
#define EDGE_USAGE (-2)         /* an invalid call: NULL, no such class, evicting the running task */
#define EDGE_CORRUPT (-3)       /* a damaged file, or an invalid or untrusted signature */
#define EDGE_INCOMPATIBLE (-4)  /* for another backbone, device or version; too large, or no memory left */
#define EDGE_HEALTH (-6)        /* golden vectors that are not reproduced, or missing */
#define EDGE_DEADLINE (-10)     /* a frame gave up: its task was still loading at the deadline */
#define EDGE_NOT_RESIDENT (-11) /* task not in memory: not yet, not any more, or none switched to */
#define EDGE_INPUT (-12)        /* not an image, or not one that the running task accepts */

typedef struct edge_runtime edge_runtime;

typedef struct edge_result {
    int32_t class_index;  /* index of the best class */
    float score;          /* its probability */
    const float *logits;  /* all scores before softmax; valid until the next call with this runtime */
    size_t classes;       /* number of scores */
    int32_t late;         /* 1 if the answer came after the deadline */
    char label[64];       /* label of the best class, UTF-8, truncated to fit, NUL-terminated */
} edge_result;

/* Maps and verifies the backbone file. Frames run on this many threads, including the caller's (0 means 1, at
 * most 256; fewer if the system provides no more). Returns NULL on failure. */
edge_runtime *edge_runtime_open(const char *backbone, uint32_t threads);

/* As edge_runtime_open, but accepts only files (backbone and tasks) signed by one of the given keys: paths of
 * count public key files, as written by tailor keygen. Any other file is refused with -3. edge_runtime_open
 * accepts any file whose signatures, if it has any, are valid. */
edge_runtime *edge_runtime_open_trusted(const char *backbone, uint32_t threads, const char *const *keys,
                                        size_t count);

/* Loads a task bundle on this thread, from 256 KiB on with the loader's help. Returns its number, from 0. */
int edge_runtime_load(edge_runtime *runtime, const char *path);

/* As edge_runtime_load, from len bytes in memory, which are not used after it returns. The name stands for
 * the path in messages; the task's own name is in the bundle. */
int edge_runtime_load_bytes(edge_runtime *runtime, const char *name, const uint8_t *bytes, size_t len);

/* A hint that a task bundle will be needed: starts loading it on another thread and returns its number. It
 * becomes resident at a later poll or switch. */
int edge_runtime_prefetch(edge_runtime *runtime, const char *path);

/* Makes a task bundle available for switching immediately, while another thread is still decoding its
 * parameters, and returns its number. The first frame waits for each part, or decodes it, only when it gets
 * there. Errors in the parameters are returned by that frame, and the previous task runs again. Bundles below
 * 256 KiB are loaded instead. */
int edge_runtime_stream(edge_runtime *runtime, const char *path);

/* Makes this task answer the following frames. Returns 0. Costs a pointer move if the task is resident. */
int edge_runtime_switch(edge_runtime *runtime, int task);

/* Returns the number of the running task: the one that answered the last frame, until the next switch;
 * EDGE_NOT_RESIDENT if there is none. After a frame it tells whether a switcher's request was followed, and
 * which task runs again after a streamed one failed. */
int edge_runtime_current(edge_runtime *runtime);

/* Returns the number of the task with this name, in memory or not; EDGE_NOT_RESIDENT if there is none. */
int edge_runtime_find(edge_runtime *runtime, const char *name);

/* Replays the golden vectors of a task in memory (inputs with the scores computed when it was packed), which
 * takes as long as that many frames. Returns 0; EDGE_HEALTH if they are missing or not reproduced;
 * EDGE_NOT_RESIDENT if the task is not in memory. The running task does not change. */
int edge_runtime_self_test(edge_runtime *runtime, int task);

/* Removes a task from memory, cancelling its load if one is in progress. Returns 0; EDGE_USAGE for the
 * running task, and EDGE_NOT_RESIDENT for an unknown number. */
int edge_runtime_evict(edge_runtime *runtime, int task);

/* Returns 1 if this task is in memory, else 0. */
int edge_runtime_is_resident(edge_runtime *runtime, int task);

/* Returns 1 while this task is being loaded or streamed, until a poll or switch takes it in, else 0. */
int edge_runtime_is_loading(edge_runtime *runtime, int task);

/* Returns the number of scores of a task in memory. */
int edge_runtime_classes(edge_runtime *runtime, int task);

/* For a task in memory: its name; the digest that identifies its bundle's contents and thus its version (64
 * hexadecimal digits, as printed by `tailor inspect`); and the label of one of its classes (empty if it has
 * no labels). Text is truncated to size and NUL-terminated. All return the length of the whole text. */
int edge_runtime_task_name(edge_runtime *runtime, int task, char *text, size_t size);
int edge_runtime_task_digest(edge_runtime *runtime, int task, char *text, size_t size);
int edge_runtime_label(edge_runtime *runtime, int task, size_t class_index, char *text, size_t size);

/* Takes in finished loads without waiting. Returns the error of a failed load, or of a switcher's request
 * that could not be followed, one per call. A switch to the task reports the reason, too. */
int edge_runtime_poll(edge_runtime *runtime);

/* As edge_runtime_poll, but waits until nothing is being loaded. */
int edge_runtime_settle(edge_runtime *runtime);

/* Limits the bytes of resident tasks; when a load exceeds the limit, the least recently used tasks are
 * evicted. SIZE_MAX: no limit. Not included are the workspace shared by frames, as large as the largest
 * task's (edge_runtime_workspace_bytes in the metrics), and the buffers kept by loads: at most 11 MiB,
 * usually less than 2, and kernels of a generic backbone that tasks of other image sizes need in another
 * form; nor the buffers in which images are resized and normalised, which the metrics leave out, too. A load
 * allocates its memory before other tasks are evicted. */
int edge_runtime_set_budget(edge_runtime *runtime, size_t bytes);

/* Sets the time limit of a frame, 0: none. A later answer is marked late and counted; a frame whose task is
 * still loading gives up then and returns EDGE_DEADLINE. */
int edge_runtime_set_deadline(edge_runtime *runtime, uint64_t micros);

/* Classifies an image. Returns 0; on failure the result is left unchanged.
 *
 * Pixels are height * width * channels bytes, tightly packed: rows from the top without padding, 1 (grey) or
 * 3 (red, green, blue) bytes per pixel; at most 32768 per side and 2^26 pixels. BGR cannot be told from RGB:
 * it gives wrong answers, not an error. To convert from BGR rows of stride bytes, as OpenCV and many cameras
 * produce them:
 *
 *     for (y = 0; y < height; y++)
 *         for (x = 0; x < width; x++)
 *             for (c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = bgr[y * stride + x * 3 + 2 - c];
 */
int edge_runtime_frame(edge_runtime *runtime, const uint8_t *pixels, size_t width, size_t height,
                       size_t channels, edge_result *result);

/* Writes counters, gauges and the resident tasks' names and digests as Prometheus text, truncated to size and
 * NUL-terminated. Returns the length of the whole text. */
int edge_runtime_metrics(edge_runtime *runtime, char *text, size_t size);

/* A handle for requesting switches from other threads. Must be freed; may outlive the runtime. NULL on
 * failure. */
typedef struct edge_switcher edge_switcher;
edge_switcher *edge_runtime_switcher(edge_runtime *runtime);

/* Requests this task from the next frame on. Never waits and never makes a frame wait; from any thread. */
void edge_switcher_switch(const edge_switcher *switcher, int task);

/* Frees a switcher. NULL is allowed. */
void edge_switcher_free(edge_switcher *switcher);

/* Returns the library's version, to be compared with EDGE_RUNTIME_VERSION. */
const char *edge_runtime_version(void);

/* Returns the last error of this thread; empty if there was none. Valid until this thread's next call. */
const char *edge_runtime_last_error(void);

/* Frees everything, once the load in progress has reached its next part. NULL is allowed. */
void edge_runtime_close(edge_runtime *runtime);

#ifdef __cplusplus
}
#endif

#endif
