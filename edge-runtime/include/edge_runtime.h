/* edge-runtime: one backbone, many tasks, from C.
 *
 * In short: edge_runtime_open, edge_runtime_load, edge_runtime_switch, and edge_runtime_frame per image.
 *
 * A runtime is used by one thread at a time; only a switcher is for others. Functions that return int answer
 * a negative number on failure (EDGE_USAGE and so on below); edge_runtime_last_error then says what was
 * found, what was expected and what to do. A load that fails or is cancelled leaves the running task where it
 * was.
 *
 * Paths are UTF-8. The backbone file is mapped: replace it by renaming another onto it (mv), never by writing
 * into it (cp), which changes the answers of running programs or ends them with SIGBUS. Task bundles are read
 * when they are loaded, and checked; a half-written one is refused.
 *
 * A task has one number for as long as the runtime lives. It goes by its name, which is in the bundle:
 * loading or streaming a bundle of a name that is known replaces that task under its number, from the next
 * frame on if it is the running one. A prefetched bundle has a number of its own, by its path, and an idle
 * task of its name leaves when it becomes resident; prefetching a path from which a task is resident does
 * nothing, even if the file has changed.
 *
 * The library's threads (workers of a frame, the loader) leave signals as they find them: block what they are
 * not to handle before edge_runtime_open and the first load, which start them.
 *
 * Link with libedge_runtime.a (cargo build --release -p edge-runtime) and, on Linux, -lpthread -ldl -lm. Take
 * the one of --release, in which a panic becomes an error: in that of --profile lean, which is for the
 * program, a panic aborts yours. The archive holds zstd; a program that links another zstd, too, takes the
 * shared library, which keeps its own to itself (cargo rustc --release -p edge-runtime --lib --crate-type
 * cdylib).
 */
#ifndef EDGE_RUNTIME_H
#define EDGE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this header; edge_runtime_version() is that of the library. */
#define EDGE_RUNTIME_VERSION "0.1.0"

/* Failures. */
#define EDGE_OTHER (-1)         /* a file or the system; edge_runtime_last_error says which */
#define EDGE_USAGE (-2)         /* a call that cannot be right: NULL, no such class, evicting what runs */
#define EDGE_CORRUPT (-3)       /* a damaged file, a wrong signature, or one that is not trusted */
#define EDGE_INCOMPATIBLE (-4)  /* for another backbone, device or version, or too large for the budget */
#define EDGE_HEALTH (-6)        /* a task without the scores that its bundle promises, or with no promise */
#define EDGE_DEADLINE (-10)     /* a frame gave up: its task was still on its way when the deadline came */
#define EDGE_NOT_RESIDENT (-11) /* no such task in memory: not yet, not any more, or none was switched to */
#define EDGE_INPUT (-12)        /* no image, or none that the running task takes */

typedef struct edge_runtime edge_runtime;

typedef struct edge_result {
    int32_t class_index;  /* index of the best class */
    float score;          /* its probability */
    const float *logits;  /* all scores before softmax; valid until the next call with this runtime */
    size_t classes;       /* number of scores */
    int32_t late;         /* 1 when the answer came after the deadline */
    char label[64];       /* label of the best class, UTF-8, cut to fit, ends in a zero */
} edge_result;

/* Maps and checks the backbone file. Frames run on this many threads, the caller's among them (0 is 1, at
 * most 256; fewer where the system gives no more). NULL on failure. */
edge_runtime *edge_runtime_open(const char *backbone, uint32_t threads);

/* As edge_runtime_open, but for files, the backbone's and the tasks', that one of these keys has signed:
 * paths of count public key files, as tailor keygen writes them. Any other file is refused with -3.
 * edge_runtime_open takes every file whose signatures, if it has some, are right. */
edge_runtime *edge_runtime_open_trusted(const char *backbone, uint32_t threads, const char *const *keys,
                                        size_t count);

/* Loads a task bundle on this thread, with the loader's help from 256 KiB on: its number, from 0. */
int edge_runtime_load(edge_runtime *runtime, const char *path);

/* The same from len bytes in memory, which are not used any more when it returns. The name stands for the
 * path in messages; the task's own name is in the bundle. */
int edge_runtime_load_bytes(edge_runtime *runtime, const char *name, const uint8_t *bytes, size_t len);

/* A hint that a task bundle will be needed: begins to load it on another thread. Its number. It becomes
 * resident at a later poll or switch. */
int edge_runtime_prefetch(edge_runtime *runtime, const char *path);

/* Makes a task bundle ready to be switched to at once, while its parameters are still being decoded on
 * another thread: its number. Its first frame waits for each part, or makes it, only when it gets there.
 * What is wrong with the parameters comes from that frame, and the task before it runs again. Bundles below
 * 256 KiB are loaded. */
int edge_runtime_stream(edge_runtime *runtime, const char *path);

/* Makes this task answer the frames to come: 0. Costs a pointer move when it is resident. */
int edge_runtime_switch(edge_runtime *runtime, int task);

/* The number of the running task: the one that answered the last frame, until the next switch.
 * EDGE_NOT_RESIDENT when there is none. After a frame it tells whether a switcher's request has been
 * followed, and which task runs again where a streamed one was broken. */
int edge_runtime_current(edge_runtime *runtime);

/* The number of the task of this name, in memory or not; EDGE_NOT_RESIDENT when no task has it. */
int edge_runtime_find(edge_runtime *runtime, const char *name);

/* Replays the golden vectors of a task in memory (inputs with the scores that they gave where it was
 * packed), in the time of as many frames: 0, or EDGE_HEALTH. The running task stays. */
int edge_runtime_self_test(edge_runtime *runtime, int task);

/* Takes a task out of memory, and cancels its load if one is under way: 0. EDGE_USAGE for the running task,
 * and EDGE_NOT_RESIDENT for a number that no task has. */
int edge_runtime_evict(edge_runtime *runtime, int task);

/* 1 when this task is in memory, else 0. */
int edge_runtime_is_resident(edge_runtime *runtime, int task);

/* 1 while this task is being loaded or streamed in, until a poll or a switch takes it in, else 0. */
int edge_runtime_is_loading(edge_runtime *runtime, int task);

/* Number of scores of a task in memory. */
int edge_runtime_classes(edge_runtime *runtime, int task);

/* The name of a task in memory, the digest that names its bundle's contents (64 hexadecimal digits, as
 * `tailor inspect` prints them: which version it is), and the label of one of its classes (empty when it has
 * none), cut to size and ending in a zero: the length of the whole text. */
int edge_runtime_task_name(edge_runtime *runtime, int task, char *text, size_t size);
int edge_runtime_task_digest(edge_runtime *runtime, int task, char *text, size_t size);
int edge_runtime_label(edge_runtime *runtime, int task, size_t class_index, char *text, size_t size);

/* Takes in finished loads without waiting; a failed one is answered with its error, one at each call, and so
 * is a switch that a switcher asked for in vain. A switch to the task tells the reason, too. */
int edge_runtime_poll(edge_runtime *runtime);

/* The same, but waits until nothing is being loaded. */
int edge_runtime_settle(edge_runtime *runtime);

/* Most bytes of resident tasks; the least recently used go first when a load exceeds it. SIZE_MAX: no limit.
 * The workspace that frames share, as large as the largest task's, is not among them
 * (edge_runtime_workspace_bytes in the metrics), nor is what loads keep at hand: at most 11 MiB, and as a
 * rule less than two. A load has its memory before others leave. */
int edge_runtime_set_budget(edge_runtime *runtime, size_t bytes);

/* Time a frame may take, 0: no limit. A later answer is marked late and counted; a frame whose task is still
 * on its way gives up then and answers EDGE_DEADLINE. */
int edge_runtime_set_deadline(edge_runtime *runtime, uint64_t micros);

/* Classifies an image: 0. On failure the result stays as it was.
 *
 * Pixels are height * width * channels bytes, packed tightly: rows from the top, nothing between them, 1
 * (grey) or 3 (red, green, blue) bytes a pixel; at most 32768 a side and 2^26 pixels. Nothing can tell BGR
 * from RGB: it gives wrong answers, and no error. From BGR rows of stride bytes, as OpenCV and many cameras
 * have them:
 *
 *     for (y = 0; y < height; y++)
 *         for (x = 0; x < width; x++)
 *             for (c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = bgr[y * stride + x * 3 + 2 - c];
 */
int edge_runtime_frame(edge_runtime *runtime, const uint8_t *pixels, size_t width, size_t height,
                       size_t channels, edge_result *result);

/* Writes counters, gauges and the resident tasks' names and digests as Prometheus text, cut to size and
 * ending in a zero: the length of the whole text. */
int edge_runtime_metrics(edge_runtime *runtime, char *text, size_t size);

/* A handle by which other threads ask for switches. To be freed; may outlive the runtime. NULL on failure. */
typedef struct edge_switcher edge_switcher;
edge_switcher *edge_runtime_switcher(edge_runtime *runtime);

/* Asks for this task from the next frame on. Never waits and never makes a frame wait; from any thread. */
void edge_switcher_switch(const edge_switcher *switcher, int task);

/* Frees it. NULL is fine. */
void edge_switcher_free(edge_switcher *switcher);

/* The library's version, to be held against EDGE_RUNTIME_VERSION. */
const char *edge_runtime_version(void);

/* What went wrong last on this thread; empty when nothing did. Valid until this thread's next call. */
const char *edge_runtime_last_error(void);

/* Frees everything, after the load under way has come to its next part. NULL is fine. */
void edge_runtime_close(edge_runtime *runtime);

#ifdef __cplusplus
}
#endif

#endif
