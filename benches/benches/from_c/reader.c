/* What benches/benches/from_c/main.rs does, from C: see there. */
#include <kvrail.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 512, BATCH = 32, IN_FLIGHT = 6, SLOTS = BATCH * IN_FLIGHT };

static void must(int32_t status, const char *call) {
    if (status == KVRAIL_OK) return;
    char text[512];
    kvrail_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", call, kvrail_status_name(status), text);
    exit(1);
}
#define MUST(call) must(call, #call)

struct run {
    kvrail_reader *reader;
    uint32_t peer, region;
    const kvrail_location *locations;
    size_t batches;
};

/* Page by page. Returns how many pages arrived. Never inlined, so that its instructions have its
 * name. */
__attribute__((noinline)) static size_t read_pages(const struct run *r) {
    uint32_t slots[SLOTS]; /* a queue of those that are free */
    size_t first = 0, free_slots = SLOTS;
    for (uint32_t slot = 0; slot < SLOTS; slot++) slots[slot] = slot;
    size_t next = 0, submitted = 0, in_flight = 0, done = 0, arrived = 0;
    kvrail_read reads[BATCH];
    kvrail_result results[BATCH];
    memset(reads, 0, sizeof reads);
    while (done < r->batches * BATCH) {
        while (submitted < r->batches && in_flight < IN_FLIGHT && free_slots >= BATCH) {
            for (size_t i = 0; i < BATCH; i++) {
                reads[i].peer = r->peer;
                reads[i].region = r->region;
                reads[i].slot = slots[first];
                first = first + 1 == SLOTS ? 0 : first + 1;
                reads[i].location = r->locations[next];
                next = next + 1 == PAGES ? 0 : next + 1;
            }
            kvrail_read_options options = {.struct_bytes = sizeof options, .tag = submitted};
            MUST(kvrail_reader_read(r->reader, reads, BATCH, &options, NULL));
            free_slots -= BATCH;
            submitted++;
            in_flight++;
        }
        MUST(kvrail_reader_poll(r->reader));
        size_t count, any = 0;
        do {
            MUST(kvrail_reader_results(r->reader, results, BATCH, &count));
            for (size_t i = 0; i < count; i++) {
                arrived += results[i].status == KVRAIL_OK;
                slots[(first + free_slots++) % SLOTS] = results[i].slot;
            }
            any += count;
            in_flight -= count / BATCH; /* batches are taken whole */
        } while (count == BATCH);
        done += any;
        if (any == 0) MUST(kvrail_reader_wait(r->reader, 1000000000));
    }
    return arrived;
}

/* By one call a batch, into consecutive slots; the tag of a batch is the first of them. */
__attribute__((noinline)) static size_t read_ranges(const struct run *r) {
    uint32_t ranges[IN_FLIGHT]; /* a queue of the first slots of ranges that are free */
    size_t first = 0, free_ranges = IN_FLIGHT;
    for (uint32_t range = 0; range < IN_FLIGHT; range++) ranges[range] = range * BATCH;
    size_t next = 0, submitted = 0, done = 0, arrived = 0;
    while (done < r->batches) {
        while (submitted < r->batches && free_ranges > 0) {
            kvrail_read_range range = {
                .peer = r->peer, .region = r->region, .first_slot = ranges[first],
                .locations = &r->locations[next], .count = BATCH,
            };
            kvrail_read_options options = {.struct_bytes = sizeof options, .tag = ranges[first]};
            MUST(kvrail_reader_read_ranges(r->reader, &range, 1, &options, NULL));
            first = first + 1 == IN_FLIGHT ? 0 : first + 1;
            next = next + BATCH == PAGES ? 0 : next + BATCH;
            free_ranges--;
            submitted++;
        }
        MUST(kvrail_reader_poll(r->reader));
        kvrail_batch_result batch;
        size_t any = 0;
        for (;;) {
            uint64_t failed;
            MUST(kvrail_reader_next_batch(r->reader, &batch, &failed, 1, NULL, 0));
            if (batch.pages == 0) break;
            arrived += batch.pages - (size_t)__builtin_popcountll(failed);
            ranges[(first + free_ranges++) % IN_FLIGHT] = (uint32_t)batch.tag;
            any++;
        }
        done += any;
        if (any == 0) MUST(kvrail_reader_wait(r->reader, 1000000000));
    }
    return arrived;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int in_bulk = strcmp(argv[1], "bulk") == 0;
    if (!in_bulk && strcmp(argv[1], "count") != 0) return 2;
    uint64_t page_bytes = strtoull(argv[2], NULL, 10);
    size_t batches = strtoull(argv[3], NULL, 10);
    const kvrail_layout *layout;
    MUST(kvrail_layout_opaque(page_bytes, &layout));
    kvrail_keys keys = {.hex = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"};
    kvrail_pool pool = {.layout = layout, .slots = PAGES};
    kvrail_publisher_config producer = {
        .struct_bytes = sizeof producer, .node = "producer", .listen = "127.0.0.1:0",
        .transport = "shm:2", .keys = &keys, .pools = &pool, .pool_count = 1,
    };
    kvrail_publisher *publisher;
    MUST(kvrail_publisher_start(&producer, &publisher));
    kvrail_location locations[PAGES];
    for (uint32_t slot = 0; slot < PAGES; slot++) {
        kvrail_key_tag tag = {slot, 0};
        kvrail_slot_bytes bytes;
        MUST(kvrail_publisher_begin(publisher, 0, slot, &tag, &bytes));
        memset(bytes.address, (int)slot, bytes.bytes);
        MUST(kvrail_publisher_publish(publisher, 0, slot, &locations[slot]));
    }
    char address[64];
    MUST(kvrail_publisher_address(publisher, address, sizeof address));

    kvrail_reader_config config = {
        .struct_bytes = sizeof config, .transport = "shm:2", .layout = layout, .max_rails = 2,
        .max_peers = 64, .max_batch = BATCH, .max_batches = IN_FLIGHT, .timeout_ns = 60000000000,
    };
    size_t bytes;
    MUST(kvrail_reader_bytes(&config, &bytes));
    kvrail_reader *reader;
    void *memory = malloc(bytes);
    MUST(kvrail_reader_init(&config, memory, bytes, &reader));
    kvrail_destination to = {.address = aligned_alloc(4096, (SLOTS * page_bytes + 4095) & ~4095ull),
                             .bytes = SLOTS * page_bytes};
    uint32_t region, peer;
    MUST(kvrail_reader_register(reader, NULL, &to, 1, -1, &region, NULL));
    MUST(kvrail_reader_connect(reader, address, &keys, NULL, 0, &peer));

    struct run r = {.reader = reader, .peer = peer, .region = region, .locations = locations, .batches = batches};
    size_t arrived = in_bulk ? read_ranges(&r) : read_pages(&r);
    if (arrived != batches * BATCH) {
        fprintf(stderr, "%zu of %zu pages arrived\n", arrived, batches * BATCH);
        return 1;
    }
    MUST(kvrail_reader_close(reader));
    MUST(kvrail_publisher_close(publisher));
    free(to.address);
    free(memory);
    return 0;
}
