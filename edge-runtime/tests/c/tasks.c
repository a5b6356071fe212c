/* Calls every function of edge_runtime.h as firmware would. Arguments: backbone, three task bundles, a
 * damaged one; a public key, the backbone and a task signed with it; two task bundles, one with wrong and one
 * without golden vectors. Prints the label and first score of each answer; exits with 1 if a check fails. */
#include "edge_runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void expect(int there, const char *what) {
    if (!there) {
        fprintf(stderr, "check failed: %s (last error: %s)\n", what, edge_runtime_last_error());
        failures = 1;
    }
}

static edge_result frame(edge_runtime *runtime) {
    static uint8_t pixels[20 * 10 * 3];
    edge_result result;
    size_t i;
    memset(&result, 0, sizeof result);
    for (i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 7);
    expect(edge_runtime_frame(runtime, pixels, 20, 10, 3, &result) == 0, "a frame");
    return result;
}

static void answer(edge_runtime *runtime) {
    edge_result result = frame(runtime);
    if (!result.logits) return;
    printf("%s %d %zu %.4f\n", result.label, (int)result.class_index, result.classes, result.logits[0]);
}

/* A file's bytes; the caller frees them. */
static uint8_t *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    long end;
    if (!file || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) <= 0) exit(2);
    bytes = malloc((size_t)end);
    rewind(file);
    if (!bytes || fread(bytes, 1, (size_t)end, file) != (size_t)end) exit(2);
    fclose(file);
    *size = (size_t)end;
    return bytes;
}

struct request {
    const edge_switcher *switcher;
    int task;
};

static void *ask(void *argument) {
    const struct request *request = argument;
    edge_switcher_switch(request->switcher, request->task);
    return NULL;
}

int main(int count, char **files) {
    edge_runtime *runtime;
    edge_switcher *switcher;
    struct request request;
    pthread_t thread;
    static char text[8192];
    char small[8];
    edge_result result;
    int first, second, third, fourth, length;
    const char *gauge, *key;
    unsigned long long bytes;
    uint8_t *bundle;
    size_t size;

    if (count != 11) return 2;
    expect(strcmp(edge_runtime_version(), EDGE_RUNTIME_VERSION) == 0, "header and library of one version");
    expect(edge_runtime_open("/no/such/backbone", 1) == NULL, "no backbone, no runtime");
    expect(strstr(edge_runtime_last_error(), "/no/such/backbone") != NULL, "the error names the file");

    /* Only files signed with a key. */
    expect(edge_runtime_open_trusted(files[7], 1, NULL, 0) == NULL, "no keys, no runtime");
    key = files[1];
    expect(edge_runtime_open_trusted(files[7], 1, &key, 1) == NULL, "a backbone is not a key");
    key = files[6];
    expect(edge_runtime_open_trusted(files[1], 1, &key, 1) == NULL, "a backbone of another key");
    expect(strstr(edge_runtime_last_error(), files[1]) != NULL, "the error names the backbone");
    runtime = edge_runtime_open_trusted(files[7], 1, &key, 1);
    expect(runtime != NULL, "a signed backbone");
    expect(edge_runtime_load(runtime, files[2]) == -3, "a task of another key");
    expect(edge_runtime_load(runtime, files[8]) == 0, "a signed task");
    edge_runtime_close(runtime);

    runtime = edge_runtime_open(files[1], 2);
    expect(runtime != NULL, "open");
    if (!runtime) return 1;

    expect(edge_runtime_current(runtime) == EDGE_NOT_RESIDENT, "nothing runs yet");
    first = edge_runtime_load(runtime, files[2]);
    expect(first == 0, "the first task is number 0");
    expect(edge_runtime_current(runtime) == EDGE_NOT_RESIDENT, "nothing runs before a switch");
    expect(edge_runtime_switch(runtime, first) == 0, "switch");
    answer(runtime);
    expect(edge_runtime_current(runtime) == first, "the task that answered");

    /* Loads while a task is running. */
    second = edge_runtime_prefetch(runtime, files[3]);
    expect(second == 1, "the second is number 1");
    expect(edge_runtime_settle(runtime) == 0, "settle");
    expect(edge_runtime_is_resident(runtime, second) == 1, "prefetched");
    expect(edge_runtime_switch(runtime, second) == 0, "switch to the prefetched task");
    answer(runtime);
    third = edge_runtime_stream(runtime, files[4]);
    expect(third == 2, "the third is number 2");
    expect(edge_runtime_switch(runtime, third) == 0, "switch to the task being streamed");
    answer(runtime);
    expect(edge_runtime_settle(runtime) == 0, "streamed");

    /* A broken bundle, loaded each way: the running task stays. */
    expect(edge_runtime_load(runtime, files[5]) == -3, "a damaged bundle");
    expect(edge_runtime_prefetch(runtime, files[5]) >= 0, "prefetching only begins");
    expect(edge_runtime_settle(runtime) == -3, "a damaged bundle, prefetched");
    answer(runtime);

    /* From another thread, at the next frame. */
    switcher = edge_runtime_switcher(runtime);
    expect(switcher != NULL, "a switcher");
    request.switcher = switcher;
    request.task = first;
    expect(pthread_create(&thread, NULL, ask, &request) == 0 && pthread_join(thread, NULL) == 0, "a thread");
    expect(edge_runtime_current(runtime) == third, "not before the next frame");
    answer(runtime);
    expect(edge_runtime_current(runtime) == first, "with the next frame");

    /* A failed request: the next poll reports it, once. */
    edge_switcher_switch(switcher, 77);
    answer(runtime);
    expect(edge_runtime_current(runtime) == first, "the running task stays");
    expect(edge_runtime_poll(runtime) == EDGE_NOT_RESIDENT, "a failed switch is reported");
    expect(strstr(edge_runtime_last_error(), "`77`") != NULL, "with its number");
    expect(edge_runtime_poll(runtime) == 0, "once");
    edge_switcher_switch(switcher, -1);
    frame(runtime);
    expect(edge_runtime_poll(runtime) == EDGE_NOT_RESIDENT, "a number that no load returns");
    expect(strstr(edge_runtime_last_error(), "`-1`") != NULL, "as it was given");

    /* From memory, and by name. */
    bundle = contents(files[2], &size);
    expect(edge_runtime_load_bytes(runtime, "a bundle", bundle, size) == first, "its number stays");
    expect(edge_runtime_load_bytes(runtime, "a bundle", bundle, size - 1) == -3, "cut short");
    expect(strstr(edge_runtime_last_error(), "a bundle") != NULL, "the error names it");
    expect(edge_runtime_load_bytes(runtime, "a bundle", bundle, 0) == -3, "no bytes");
    expect(edge_runtime_load_bytes(runtime, "a bundle", NULL, size) == EDGE_USAGE, "NULL is not a bundle");
    expect(edge_runtime_load_bytes(runtime, "a bundle", bundle, SIZE_MAX) == EDGE_USAGE, "nor is all memory");
    expect(edge_runtime_load_bytes(runtime, NULL, bundle, size) == EDGE_USAGE, "a name that is NULL");
    memset(bundle, 0, size);
    free(bundle);
    answer(runtime);
    expect(edge_runtime_task_name(runtime, second, text, sizeof text) > 0, "a name");
    expect(edge_runtime_find(runtime, text) == second, "found by its name");
    expect(edge_runtime_find(runtime, "no such task") == EDGE_NOT_RESIDENT, "no such name");

    /* Golden vectors: right, wrong, none. */
    expect(edge_runtime_self_test(runtime, first) == 0, "healthy");
    expect(edge_runtime_self_test(runtime, second) == 0, "healthy, and not running");
    expect(edge_runtime_current(runtime) == first, "the running task stays");
    fourth = edge_runtime_load(runtime, files[9]);
    expect(edge_runtime_self_test(runtime, fourth) == EDGE_HEALTH, "a wrong golden vector");
    expect(edge_runtime_evict(runtime, fourth) == 0, "evict");
    expect(edge_runtime_self_test(runtime, fourth) == EDGE_NOT_RESIDENT, "nothing to test");
    fourth = edge_runtime_load(runtime, files[10]);
    expect(edge_runtime_self_test(runtime, fourth) == EDGE_HEALTH, "no golden vectors");
    expect(edge_runtime_evict(runtime, fourth) == 0, "evict");
    expect(edge_runtime_self_test(runtime, 99) == EDGE_NOT_RESIDENT, "no such task");

    /* Memory. */
    expect(edge_runtime_evict(runtime, first) == -2, "the running task is not evicted");
    expect(edge_runtime_evict(runtime, second) == 0, "evict");
    expect(edge_runtime_is_resident(runtime, second) == 0, "evicted");
    expect(edge_runtime_switch(runtime, second) == EDGE_NOT_RESIDENT, "no switch to it");
    expect(edge_runtime_classes(runtime, second) == EDGE_NOT_RESIDENT, "no classes of it");
    expect(edge_runtime_is_loading(runtime, first) == 0, "not loading");
    length = edge_runtime_task_name(runtime, first, text, sizeof text);
    expect(length > 0 && (size_t)length == strlen(text), "a name");
    expect(edge_runtime_task_name(runtime, first, NULL, 0) == length, "the length of a name");
    expect(edge_runtime_task_digest(runtime, first, text, sizeof text) == 64, "a digest");
    expect(strspn(text, "0123456789abcdef") == 64 && text[64] == 0, "in hexadecimal");
    result = frame(runtime);
    expect(edge_runtime_classes(runtime, first) == (int)result.classes, "classes");
    length = edge_runtime_label(runtime, first, (size_t)result.class_index, text, sizeof text);
    expect(length > 0 && strcmp(text, result.label) == 0, "the label of the best class");
    expect(edge_runtime_label(runtime, first, result.classes, text, sizeof text) == EDGE_USAGE, "no class");
    expect(edge_runtime_switch(runtime, 99) == EDGE_NOT_RESIDENT, "no such task");
    expect(edge_runtime_switch(runtime, -5) == EDGE_NOT_RESIDENT, "nor a negative one");
    expect(strstr(edge_runtime_last_error(), "`-5`") != NULL, "as it was given");
    expect(edge_runtime_evict(runtime, 99) == EDGE_NOT_RESIDENT, "no such task to evict");
    expect(edge_runtime_find(runtime, "digits") == first, "by name");
    expect(edge_runtime_set_budget(runtime, 1) == 0, "a budget");
    expect(edge_runtime_load(runtime, files[3]) == -4, "too small for two");
    expect(edge_runtime_is_resident(runtime, third) == 1, "nothing is evicted for a task that cannot fit");
    expect(edge_runtime_set_budget(runtime, SIZE_MAX) == 0, "no budget");
    expect(edge_runtime_load(runtime, files[3]) == second, "again into its slot");
    expect(edge_runtime_metrics(runtime, text, sizeof text) > 0, "metrics");
    gauge = strstr(text, "\nedge_runtime_resident_task_bytes ");
    expect(gauge != NULL, "bytes of resident tasks");
    if (!gauge) return 1;
    bytes = strtoull(gauge + strlen("\nedge_runtime_resident_task_bytes "), NULL, 10);
    expect(edge_runtime_evict(runtime, second) == 0, "evict it again");
    expect(edge_runtime_set_budget(runtime, (size_t)bytes - 1) == 0, "a byte too little for three");
    expect(edge_runtime_load(runtime, files[3]) == second, "two fit");
    expect(edge_runtime_is_resident(runtime, third) == 0, "the least recently used went");
    expect(edge_runtime_evict(runtime, second) == 0, "evict it once more");
    expect(edge_runtime_set_budget(runtime, SIZE_MAX) == 0, "no budget again");

    /* A microsecond is not enough. */
    expect(edge_runtime_set_deadline(runtime, 1) == 0, "a deadline");
    result = frame(runtime);
    expect(result.late == 1, "late");
    expect(edge_runtime_set_deadline(runtime, 0) == 0, "no deadline");
    result = frame(runtime);
    expect(result.late == 0, "not late");

    expect(edge_runtime_poll(runtime) == 0, "nothing is left to report");
    length = edge_runtime_metrics(runtime, text, sizeof text);
    expect(length > 0 && (size_t)length == strlen(text), "metrics");
    expect(strstr(text, "\nedge_runtime_missed_deadlines_total 1\n") != NULL, "the late frame is counted");
    expect(strstr(text, "\nedge_runtime_resident_tasks 1\n") != NULL, "one task is left");
    expect(strstr(text, "\nedge_runtime_failed_switches_total 2\n") != NULL, "two requests failed");
    expect(edge_runtime_metrics(runtime, small, sizeof small) == length && strlen(small) == 7, "cut to fit");
    expect(edge_runtime_metrics(runtime, NULL, 0) == length, "asked for the length");

    expect(edge_runtime_frame(runtime, NULL, 1, 1, 1, &result) == -2, "no pixels");
    expect(edge_runtime_frame(runtime, (uint8_t *)text, 1, 1, 2, &result) == EDGE_INPUT, "two channels");
    expect(edge_runtime_load(runtime, NULL) == -2 && edge_runtime_switch(NULL, 0) == -2, "NULL");
    edge_runtime_close(runtime);
    edge_runtime_close(NULL);
    edge_switcher_switch(switcher, first);
    edge_switcher_free(switcher);
    edge_switcher_free(NULL);
    return failures;
}
