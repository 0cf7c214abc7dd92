/* What a page that is put costs, beside a copy: three threads put pages of 128 KiB, 128 a call, into
 * a node's own pool, which is full, or copy them with memcpy, in rounds that take turns. Prints
 * medians of the processor time that the process takes for a GB.
 *
 *     cargo build --release -p kvrail-capi
 *     gcc -std=c11 -O2 -Iengine/capi/include benches/benches/from_c/set.c target/release/libkvrail.a \
 *         -lpthread -ldl -lm -lrt -o target/set && target/set
 *
 * An argument, "embedded", gives the node a directory. */
#define _GNU_SOURCE
#include <kvrail.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { THREADS = 3, PAGES = 128, CALLS = 12, ROUNDS = 9, KEY_BYTES = 64 };
enum way { WHOLE, PAGE_BY_PAGE, SET, WAYS };
static const char *const names[] = {"memcpy of 16 MiB", "memcpy, page by page", "set"};
static const size_t PAGE = 128 << 10, CALL = PAGES * (128 << 10), POOL = 512ul << 20;

static unsigned char *source, *target;
static kvrail_node *node;
static uint32_t space, places;
static enum way way;
static unsigned round_number;

static void must(int32_t status, const char *call) {
    if (status == KVRAIL_OK) return;
    char text[512];
    kvrail_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", call, kvrail_status_name(status), text);
    exit(1);
}
#define MUST(call) must(call, #call)

static void put(unsigned thread, unsigned call) {
    static _Thread_local char keys[PAGES * KEY_BYTES + 1];
    uint32_t indices[PAGES];
    int32_t statuses[PAGES];
    kvrail_put_counts counts;
    for (unsigned i = 0; i < PAGES; i++) {
        snprintf(keys + i * KEY_BYTES, KEY_BYTES + 1, "%016x%016x%016x%016x", round_number, thread, call, i);
        indices[i] = thread * PAGES + i;
    }
    kvrail_page_keys of = {.bytes = (const uint8_t *)keys, .byte_count = PAGES * KEY_BYTES, .count = PAGES};
    MUST(kvrail_node_put_places(node, space, &of, places, indices, statuses, &counts));
    if (counts.stored != PAGES) exit(1);
}

static void *work(void *argument) {
    unsigned thread = *(unsigned *)argument;
    for (unsigned call = 0; call < CALLS; call++) {
        const unsigned char *from = source + thread * CALL;
        unsigned char *to = target + (call * THREADS + thread) * CALL % (POOL - CALL);
        if (way == SET) put(thread, call);
        if (way == WHOLE) memcpy(to, from, CALL);
        for (size_t at = 0; way == PAGE_BY_PAGE && at < CALL; at += PAGE) memcpy(to + at, from + at, PAGE);
    }
    return NULL;
}

static double processor_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds of processor time a GB. */
static double one_round(enum way how) {
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    way = how;
    round_number++;
    double before = processor_time();
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, work, &numbers[i]) != 0) exit(1);
    }
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return (processor_time() - before) / ((double)CALL * THREADS * CALLS / 1e9);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    source = aligned_alloc(4096, THREADS * CALL);
    /* With huge pages, as numpy has them for memory of this size. */
    target = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (source == NULL || target == MAP_FAILED) return 1;
    madvise(target, POOL, MADV_HUGEPAGE);
    memset(source, 1, THREADS * CALL);
    memset(target, 1, POOL);

    const kvrail_layout *layout;
    MUST(kvrail_layout_opaque(PAGE, &layout));
    kvrail_keys keys = {.hex = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"};
    kvrail_pool pool = {.layout = layout, .slots = (uint32_t)(POOL / PAGE)};
    kvrail_node_config config = {
        .struct_bytes = sizeof config, .name = "set", .transport = "shm:1", .keys = &keys,
        .tag_secret_hex = "7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b",
        .directory = argc > 1 ? argv[1] : "none", .pools = &pool, .pool_count = 1,
    };
    MUST(kvrail_node_start(&config, &node));
    MUST(kvrail_node_space(node, layout, "model", "", &space));
    kvrail_destination memory = {.address = source, .bytes = THREADS * CALL};
    uint32_t count;
    MUST(kvrail_node_register(node, layout, &memory, 1, -1, &places, &count));

    double times[WAYS][ROUNDS];
    for (int i = 0; i < WAYS; i++) one_round((enum way)i); /* the pool is full from now on */
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < WAYS; i++) times[i][round] = one_round((enum way)i);
    }
    for (int i = 0; i < WAYS; i++) {
        qsort(times[i], ROUNDS, sizeof times[i][0], by_size);
        printf("%-21s %.4f s a GB, %.3f of memcpy of 16 MiB\n", names[i], times[i][ROUNDS / 2],
               times[0][ROUNDS / 2] / times[i][ROUNDS / 2]);
    }
    MUST(kvrail_node_close(node));
    return 0;
}
