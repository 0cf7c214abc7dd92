/* An inference engine that reads the pages of another one into its own memory, over shared memory,
 * and checks every byte of them.
 *
 *     ./reader mha|latent ADDRESS [--pages N] [--bulk | --early] [--epoll]
 *
 * It asks the publication table which pages there are, reads them in batches, and begins anew. A
 * page that the producer overwrites meanwhile is a miss, and never a mixture. "--bulk" reads each
 * batch into slots that follow each other, which costs the least; "--early" takes each result as
 * soon as its page has arrived; "--epoll" sleeps in an event loop of its own.
 */
#define _GNU_SOURCE
#include "pages.h"

#include <inttypes.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 32, IN_FLIGHT = 3, SLOTS = BATCH * IN_FLIGHT };

struct engine {
    kvrail_reader *reader;
    uint32_t peer, region, objects;
    size_t page_bytes; /* of a page in one object */
    unsigned char *object[2];
    uint32_t free[SLOTS]; /* slots that are not in flight */
    uint32_t free_count;
    uint32_t free_ranges[IN_FLIGHT]; /* first slots of ranges that are not in flight, in bulk */
    uint32_t free_range_count;
    uint64_t tag_of[SLOTS]; /* what is read into each */
    kvrail_location *locations;
    size_t location_count, next;
    uint64_t right, missed, wrong;
    int epoll, bulk;
    uint32_t flags; /* of batches that are read page by page */
};

static void *aligned(size_t bytes) {
    void *at = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (at == NULL) {
        perror("aligned_alloc");
        exit(1);
    }
    return at;
}

/* Asks the producer's publication table which pages there are. The producer takes no part. */
static void list(struct engine *e, uint32_t slots) {
    if (e->locations == NULL) e->locations = aligned(slots * sizeof *e->locations);
    must(kvrail_reader_published(e->reader, e->peer, 0, 0, slots, 5000000000u, e->locations,
                                 &e->location_count),
         "kvrail_reader_published");
    e->next = 0;
}

/* Reads the next pages, up to a batch of them. */
static void read_batch(struct engine *e, uint32_t flags) {
    kvrail_read reads[BATCH];
    memset(reads, 0, sizeof reads);
    uint32_t count = 0;
    while (count < BATCH && e->next < e->location_count) {
        uint32_t slot = e->free[--e->free_count];
        e->tag_of[slot] = e->locations[e->next].tag.low;
        reads[count].peer = e->peer;
        reads[count].region = e->region;
        reads[count].slot = slot;
        reads[count].location = e->locations[e->next++];
        count++;
    }
    kvrail_read_options options = {.struct_bytes = sizeof options, .flags = flags};
    uint64_t ticket;
    must(kvrail_reader_read(e->reader, reads, count, &options, &ticket), "kvrail_reader_read");
}

/* Looks at the page that a slot was read for. */
static void check_page(struct engine *e, uint32_t slot, int32_t status) {
    int good = 1;
    switch (status) {
    case KVRAIL_OK:
        for (uint32_t o = 0; o < e->objects; o++) {
            const unsigned char *page = e->object[o] + slot * e->page_bytes;
            good &= is_right(page, e->page_bytes, e->tag_of[slot], o);
        }
        e->right += good != 0;
        e->wrong += good == 0;
        break;
    case KVRAIL_MISS_OVERWRITING:
    case KVRAIL_MISS_GENERATION:
        e->missed++;
        break;
    default:
        fprintf(stderr, "the page in slot %" PRIu32 ": %s\n", slot, kvrail_status_name(status));
        exit(1);
    }
}

/* Takes the results that there are, and checks the pages. */
static size_t take_results(struct engine *e) {
    kvrail_result results[BATCH];
    size_t count;
    must(kvrail_reader_results(e->reader, results, BATCH, &count), "kvrail_reader_results");
    for (size_t i = 0; i < count; i++) {
        check_page(e, results[i].slot, results[i].status);
        e->free[e->free_count++] = results[i].slot;
    }
    return count;
}

/* Reads the next pages, up to a batch of them, into slots that follow each other: one range names
 * them all. The tag of the batch is the first of its slots. */
static void read_range(struct engine *e) {
    size_t left = e->location_count - e->next;
    kvrail_read_range range = {
        .peer = e->peer,
        .region = e->region,
        .first_slot = e->free_ranges[--e->free_range_count],
        .locations = e->locations + e->next,
        .count = left < BATCH ? left : BATCH,
    };
    for (size_t i = 0; i < range.count; i++) e->tag_of[range.first_slot + i] = range.locations[i].tag.low;
    e->next += range.count;
    kvrail_read_options options = {.struct_bytes = sizeof options, .tag = range.first_slot};
    must(kvrail_reader_read_ranges(e->reader, &range, 1, &options, NULL), "kvrail_reader_read_ranges");
}

/* Takes a batch that is done, if there is one, and checks its pages. */
static size_t take_range(struct engine *e) {
    kvrail_batch_result batch;
    uint64_t failed[(BATCH + 63) / 64];
    int32_t statuses[BATCH];
    must(kvrail_reader_next_batch(e->reader, &batch, failed, (BATCH + 63) / 64, statuses, BATCH),
         "kvrail_reader_next_batch");
    if (batch.pages == 0) return 0;
    uint32_t first = (uint32_t)batch.tag;
    for (uint32_t i = 0; i < batch.pages; i++) {
        int missing = (failed[i / 64] >> i % 64 & 1) != 0;
        check_page(e, first + i, missing ? statuses[i] : KVRAIL_OK);
    }
    e->free_ranges[e->free_range_count++] = first;
    return batch.pages;
}

/* Reads as much as there is room for. */
static void read_more(struct engine *e) {
    if (e->bulk) {
        while (e->free_range_count > 0 && e->next < e->location_count) read_range(e);
    } else {
        while (e->free_count >= BATCH && e->next < e->location_count) read_batch(e, e->flags);
    }
}

static size_t take(struct engine *e) { return e->bulk ? take_range(e) : take_results(e); }

static int all_are_back(const struct engine *e) {
    return e->bulk ? e->free_range_count == IN_FLIGHT : e->free_count == SLOTS;
}

/* Sleeps until the reader has something to do. */
static void sleep_a_while(struct engine *e) {
    if (e->epoll < 0) {
        must(kvrail_reader_wait(e->reader, 1000000000u), "kvrail_reader_wait");
        return;
    }
    uint32_t may_sleep;
    uint64_t most_ns;
    must(kvrail_reader_arm(e->reader, &may_sleep, &most_ns), "kvrail_reader_arm");
    if (!may_sleep) return;
    struct epoll_event event;
    int ms = most_ns < 1000000000u ? (int)(most_ns / 1000000 + 1) : 1000;
    epoll_wait(e->epoll, &event, 1, ms);
}

int main(int argc, char **argv) {
    struct engine e = {.epoll = -1};
    uint64_t pages = 10000;
    int own_loop = 0;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--early") == 0) e.flags = KVRAIL_BATCH_EARLY;
        if (strcmp(argv[i], "--bulk") == 0) e.bulk = 1;
        if (strcmp(argv[i], "--epoll") == 0) own_loop = 1;
        if (strcmp(argv[i], "--pages") == 0 && i + 1 < argc) pages = strtoull(argv[++i], NULL, 10);
    }
    const kvrail_layout *layout = argc > 2 ? layout_of(argv[1]) : NULL;
    if (layout == NULL) {
        fprintf(stderr, "usage: %s mha|latent ADDRESS [--pages N] [--bulk | --early] [--epoll]\n", argv[0]);
        return 2;
    }
    if (kvrail_abi_version() != KVRAIL_ABI_VERSION) {
        fprintf(stderr, "libkvrail %s is not of this kvrail.h\n", kvrail_version());
        return 1;
    }
    kvrail_layout_info info = {.struct_bytes = sizeof info};
    must(kvrail_layout_query(layout, &info), "kvrail_layout_query");
    e.objects = info.regions;
    e.page_bytes = info.page_bytes / info.regions;

    /* The reader lives in memory of this program's, as large as its maxima want it. */
    kvrail_reader_config config = {
        .struct_bytes = sizeof config,
        .transport = "shm:2",
        .layout = layout,
        .max_rails = 2,
        .max_peers = 4,
        .max_batch = BATCH,
        .max_batches = IN_FLIGHT + 1,
    };
    size_t bytes;
    must(kvrail_reader_bytes(&config, &bytes), "kvrail_reader_bytes");
    void *memory = aligned(bytes);
    must(kvrail_reader_init(&config, memory, bytes, &e.reader), "kvrail_reader_init");

    /* The engine's own pool, which pages land in. */
    kvrail_destination destinations[2] = {{0}, {0}};
    for (uint32_t o = 0; o < e.objects; o++) {
        e.object[o] = aligned(SLOTS * e.page_bytes);
        destinations[o].address = e.object[o];
        destinations[o].bytes = SLOTS * e.page_bytes;
    }
    uint32_t slots;
    must(kvrail_reader_register(e.reader, NULL, destinations, e.objects, -1, &e.region, &slots),
         "kvrail_reader_register");
    for (uint32_t slot = 0; slot < SLOTS; slot++) e.free[e.free_count++] = slot;
    for (uint32_t i = 0; i < IN_FLIGHT; i++) e.free_ranges[e.free_range_count++] = i * BATCH;

    kvrail_keys keys = {.hex = KEY};
    must(kvrail_reader_connect(e.reader, argv[2], &keys, NULL, 0, &e.peer), "kvrail_reader_connect");
    kvrail_peer_pool pool;
    size_t pools;
    must(kvrail_reader_peer_pools(e.reader, e.peer, &pool, 1, &pools), "kvrail_reader_peer_pools");
    if (own_loop) {
        int fd;
        must(kvrail_reader_fd(e.reader, &fd), "kvrail_reader_fd");
        struct epoll_event event = {.events = EPOLLIN};
        e.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (e.epoll < 0 || epoll_ctl(e.epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            perror("epoll");
            return 1;
        }
    }

    double began = now();
    while (e.right + e.missed + e.wrong < pages) {
        /* All pages that were listed have been asked for: what is there now? */
        if (e.next == e.location_count) list(&e, (uint32_t)pool.slots);
        read_more(&e);
        must(kvrail_reader_poll(e.reader), "kvrail_reader_poll");
        if (take(&e) == 0) sleep_a_while(&e);
    }
    double took = now() - began;
    while (!all_are_back(&e)) {
        must(kvrail_reader_poll(e.reader), "kvrail_reader_poll");
        if (take(&e) == 0) must(kvrail_reader_wait(e.reader, 1000000000u), "kvrail_reader_wait");
    }
    kvrail_rail_stats stats = {.struct_bytes = sizeof stats};
    for (uint32_t rail = 0; rail < 2; rail++) {
        must(kvrail_reader_rail_stats(e.reader, rail, &stats), "kvrail_reader_rail_stats");
        printf("rail %" PRIu32 ": %" PRIu64 " bytes\n", rail, stats.bytes);
    }
    must(kvrail_reader_unregister(e.reader, e.region), "kvrail_reader_unregister");
    must(kvrail_reader_close(e.reader), "kvrail_reader_close");
    printf("%" PRIu64 " pages right, %" PRIu64 " missed, %" PRIu64 " wrong, in %.2f s\n", e.right,
           e.missed, e.wrong, took);
    if (e.epoll >= 0) close(e.epoll);
    for (uint32_t o = 0; o < e.objects; o++) free(e.object[o]);
    free(e.locations);
    free(memory);
    return e.wrong != 0;
}
