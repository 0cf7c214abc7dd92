/* An inference engine that publishes the KV pool that it has: its own memory, where it is, without
 * a copy. Readers pull pages out of it while it overwrites them.
 *
 *     ./producer mha|latent [--slots N] [--seconds S]
 *
 * It prints the address that a reader connects to, and runs until its standard input ends or the
 * seconds are over. "mha" is a pool of two objects, K and V; "latent" is one of one object, in a
 * file in memory (memfd), which readers map. README.md has the commands.
 */
#define _GNU_SOURCE
#include "pages.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The engine's pool. */
struct pool {
    uint32_t slots;
    uint32_t objects;
    unsigned char *object[2];
    size_t page_bytes; /* of a page in one object */
    kvrail_memory *memory[2];
};

/* Allocates the pool as the engine does, and names its memory to kvrail. */
static void allocate(struct pool *pool, int shared) {
    size_t bytes = pool->page_bytes * pool->slots;
    for (uint32_t i = 0; i < pool->objects; i++) {
        int fd = shared ? memfd_create("pool", MFD_CLOEXEC) : -1;
        if (shared && (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)) {
            perror("memfd_create");
            exit(1);
        }
        int flags = shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
        if (at == MAP_FAILED) {
            perror("mmap");
            exit(1);
        }
        pool->object[i] = at;
        if (shared) {
            must(kvrail_memory_file(fd, 0, at, bytes, &pool->memory[i]), "kvrail_memory_file");
            close(fd); /* kvrail has its own */
        } else {
            must(kvrail_memory_host(at, bytes, &pool->memory[i]), "kvrail_memory_host");
        }
    }
}

/* Computes a page, in place of attention kernels, and publishes it. */
static void write_page(kvrail_publisher *publisher, struct pool *pool, uint32_t slot, uint64_t page) {
    kvrail_key_tag tag = page_tag(page);
    kvrail_location location;
    /* From here on every reader misses the slot's earlier page. */
    must(kvrail_publisher_begin(publisher, 0, slot, &tag, NULL), "kvrail_publisher_begin");
    for (uint32_t i = 0; i < pool->objects; i++) {
        fill_object(pool->object[i] + slot * pool->page_bytes, pool->page_bytes, page, i);
    }
    must(kvrail_publisher_publish(publisher, 0, slot, &location), "kvrail_publisher_publish");
}

/* Whether the standard input has ended. */
static int told_to_stop(void) {
    struct pollfd in = {.fd = 0, .events = POLLIN};
    char byte;
    return poll(&in, 1, 0) > 0 && read(0, &byte, 1) <= 0;
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    struct pool pool = {.slots = 64};
    double seconds = 1e9;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--slots") == 0) pool.slots = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--seconds") == 0) seconds = strtod(argv[i + 1], NULL);
    }
    const kvrail_layout *layout = layout_of(kind);
    if (layout == NULL || pool.slots == 0) {
        fprintf(stderr, "usage: %s mha|latent [--slots N] [--seconds S]\n", argv[0]);
        return 2;
    }
    kvrail_layout_info info = {.struct_bytes = sizeof info};
    must(kvrail_layout_query(layout, &info), "kvrail_layout_query");
    pool.objects = info.regions;
    pool.page_bytes = info.page_bytes / info.regions;
    allocate(&pool, strcmp(kind, "latent") == 0);

    kvrail_pool_region regions[2] = {{.memory = pool.memory[0]}, {.memory = pool.memory[1]}};
    kvrail_pool pools[1] = {{.layout = layout, .regions = regions, .region_count = pool.objects}};
    kvrail_keys keys = {.hex = KEY};
    kvrail_publisher_config config = {
        .struct_bytes = sizeof config,
        .node = "engine",
        .listen = "127.0.0.1:0",
        .transport = "shm:2",
        /* The readers are processes beside this one, not its parents: see the field's comment. */
        .permit_any_reader = 1,
        .keys = &keys,
        .pools = pools,
        .pool_count = 1,
    };
    kvrail_publisher *publisher;
    must(kvrail_publisher_start(&config, &publisher), "kvrail_publisher_start");

    uint64_t page = 0;
    for (uint32_t slot = 0; slot < pool.slots; slot++) write_page(publisher, &pool, slot, page++);
    char address[128];
    must(kvrail_publisher_address(publisher, address, sizeof address), "kvrail_publisher_address");
    printf("%s\n", address);
    fflush(stdout);

    /* Overwrites one slot after another, in no order, some thousand times a second. */
    struct timespec pause = {.tv_nsec = 200000};
    double end = now() + seconds;
    while (!told_to_stop() && now() < end) {
        write_page(publisher, &pool, (uint32_t)(page * 7919 % 65521) % pool.slots, page);
        page++;
        nanosleep(&pause, NULL);
    }
    must(kvrail_publisher_close(publisher), "kvrail_publisher_close");
    for (uint32_t i = 0; i < pool.objects; i++) {
        must(kvrail_memory_release(pool.memory[i]), "kvrail_memory_release");
        munmap(pool.object[i], pool.page_bytes * pool.slots);
    }
    fprintf(stderr, "%llu pages written\n", (unsigned long long)page);
    return 0;
}
