/* What the examples do not use: parts of a page that grows, plans, pages without validation, pools
 * that come and go, batches that are withdrawn, TCP. Bytes are compared. */
#include "both.h"

/* A page is read layer by layer while it grows. */
static void growing(struct both b) {
    kvrail_key_tag tag = {1, 1};
    kvrail_slot_bytes page;
    kvrail_location at;
    unsigned char got[TOKENS * ROW * 2];
    kvrail_destination to = {.address = got, .bytes = sizeof got};
    uint32_t region, slots;
    OK(kvrail_reader_register_bytes(b.reader, &to, TOKENS * ROW, -1, &region, &slots));
    CHECK(slots == 2);
    OK(kvrail_publisher_begin(b.publisher, 0, 0, &tag, &page));
    OK(kvrail_publisher_grow(b.publisher, 0, 0, &at));
    kvrail_read read = {.peer = b.peer, .region = region, .slot = 1, .part_bytes = TOKENS * ROW};
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        read.location = at;
        read.needs = layer + 1;
        read.part_offset = layer * TOKENS * ROW;
        EXPECT(2077, fetch(b, &read)); /* not ready yet */
        write_layer(page.address, layer);
        OK(kvrail_publisher_set_ready(b.publisher, 0, 0, layer + 1, &at));
        read.location = at;
        OK(fetch(b, &read));
        CHECK(got[TOKENS * ROW] == value(layer, 0) && got[sizeof got - 1] == value(layer, TOKENS - 1));
    }
    OK(kvrail_publisher_publish(b.publisher, 0, 0, &at));
    EXPECT(KVRAIL_OK, kvrail_reader_unregister(b.reader, region));
}

/* Layer by token at the producer becomes token by layer at the reader; and two layers alone. */
static void plans(struct both b, const kvrail_layout *layout) {
    const kvrail_layout *other = pages_of(KVRAIL_AXIS_TOKEN, KVRAIL_AXIS_LAYER);
    static unsigned char got[2 * PAGE];
    kvrail_destination to = {.address = got, .bytes = sizeof got};
    uint32_t region, plan, part, published;
    kvrail_location at;
    OK(kvrail_publisher_location(b.publisher, 0, 0, &at, &published));
    OK(kvrail_reader_register(b.reader, other, &to, 1, -1, &region, NULL));
    OK(kvrail_reader_add_plan(b.reader, layout, NULL, 0, other, NULL, 0, &plan));
    kvrail_read read = {.peer = b.peer, .region = region, .slot = 1, .location = at};
    CHECK(kvrail_reader_read(b.reader, &read, 1, NULL, NULL) != KVRAIL_OK); /* another layout */
    read.plan = plan;
    OK(fetch(b, &read));
    for (uint32_t i = 0; i < LAYERS * TOKENS; i++) CHECK(got[PAGE + i * ROW] == value(i % LAYERS, i / LAYERS));
    kvrail_range layers[] = {{.axis = KVRAIL_AXIS_LAYER, .start = 2, .len = 2}};
    OK(kvrail_reader_add_plan(b.reader, layout, layers, 1, other, layers, 1, &part));
    CHECK(part != plan);
    memset(got, 0, sizeof got);
    read.plan = part;
    read.slot = 0;
    OK(fetch(b, &read));
    for (uint32_t i = 0; i < LAYERS * TOKENS; i++) {
        CHECK(got[i * ROW] == (i % LAYERS < 2 ? 0 : value(i % LAYERS, i / LAYERS)));
    }
    OK(kvrail_reader_forget_plan(b.reader, part));
    OK(kvrail_reader_unregister(b.reader, region));
}

/* The next event, which must be of this kind. */
static kvrail_event await(struct both b, uint32_t kind) {
    kvrail_event event = {0};
    while (event.kind == KVRAIL_EVENT_NONE) {
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_next_event(b.reader, &event));
        if (event.kind == KVRAIL_EVENT_NONE) OK(kvrail_reader_wait(b.reader, 100000000));
    }
    CHECK(event.kind == kind && event.peer == b.peer);
    return event;
}

/* A second pool comes while the session stands, is read, and goes. */
static void pools(struct both b, const kvrail_layout *layout) {
    static unsigned char engine[3 * 2 * PAGE], got[PAGE];
    kvrail_memory *memory;
    OK(kvrail_memory_host(engine, sizeof engine, &memory));
    /* Blocks of two pages, of which this pool has the second. */
    kvrail_pool_region blocks = {.memory = memory, .stride = 2 * PAGE, .offset = PAGE};
    kvrail_pool pool = {.layout = layout, .regions = &blocks, .region_count = 1};
    uint32_t number, region;
    OK(kvrail_publisher_add_pool(b.publisher, &pool, &number));
    CHECK(await(b, KVRAIL_EVENT_POOL_CAME).pool == number);
    kvrail_peer_pool known[2];
    size_t count;
    OK(kvrail_reader_peer_pools(b.reader, b.peer, known, 2, &count));
    CHECK(count == 2 && known[1].pool == number && known[1].slots == 3 && known[1].page_bytes == PAGE);
    kvrail_destination to = {.address = got, .bytes = sizeof got};
    OK(kvrail_reader_register(b.reader, NULL, &to, 1, -1, &region, NULL));
    kvrail_key_tag tag = {9, 9};
    kvrail_location at;
    OK(kvrail_publisher_begin(b.publisher, number, 2, &tag, NULL));
    memset(engine + 5 * PAGE, 77, PAGE);
    OK(kvrail_publisher_publish(b.publisher, number, 2, &at));
    kvrail_read read = {.peer = b.peer, .region = region, .location = at};
    OK(fetch(b, &read));
    CHECK(got[0] == 77 && got[PAGE - 1] == 77);
    /* Without validation a page is read whatever its entry says. */
    OK(kvrail_publisher_invalidate(b.publisher, number, 2));
    EXPECT(KVRAIL_MISS_OVERWRITING, fetch(b, &read));
    read.flags = KVRAIL_READ_UNVALIDATED;
    OK(fetch(b, &read));
    OK(kvrail_publisher_withdraw(b.publisher, number, 1000000000));
    CHECK(await(b, KVRAIL_EVENT_POOL_GONE).pool == number);
    EXPECT(KVRAIL_ERROR_POOL, fetch(b, &read));
    OK(kvrail_memory_release(memory));
    OK(kvrail_reader_unregister(b.reader, region));
}

/* All batches are in flight, one is withdrawn, and each page has one result. */
static void withdrawn(struct both b) {
    static unsigned char got[4 * PAGE];
    kvrail_destination to = {.address = got, .bytes = sizeof got};
    kvrail_reader_info info = {.struct_bytes = sizeof info};
    uint32_t region, published;
    kvrail_location at;
    OK(kvrail_publisher_location(b.publisher, 0, 0, &at, &published));
    OK(kvrail_reader_register(b.reader, NULL, &to, 1, -1, &region, NULL));
    kvrail_read reads[4];
    for (uint32_t i = 0; i < 4; i++) {
        reads[i] = (kvrail_read){.peer = b.peer, .region = region, .slot = i, .location = at};
    }
    kvrail_read_options options = {
        .struct_bytes = sizeof options, .priority = KVRAIL_CLASS_BACKGROUND, .tag = 55, .flags = KVRAIL_BATCH_EARLY,
    };
    uint64_t ticket;
    OK(kvrail_reader_read(b.reader, reads, 4, &options, &ticket));
    int32_t changed = kvrail_reader_set_class(b.reader, ticket, KVRAIL_CLASS_URGENT);
    CHECK(changed == KVRAIL_OK || changed == 2095); /* it may be done already */
    changed = kvrail_reader_withdraw_page(b.reader, ticket, 3);
    CHECK(changed == KVRAIL_OK || changed == 2095);
    changed = kvrail_reader_withdraw(b.reader, ticket);
    CHECK(changed == KVRAIL_OK || changed == 2095);
    unsigned seen = 0;
    while (seen != 15) {
        kvrail_result results[4];
        size_t count;
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_results(b.reader, results, 4, &count));
        for (size_t i = 0; i < count; i++) {
            CHECK(results[i].ticket == ticket && results[i].tag == 55 && results[i].slot == results[i].index);
            CHECK(results[i].status == KVRAIL_OK || results[i].status == KVRAIL_PAGE_WITHDRAWN);
            CHECK(!(seen & 1u << results[i].index));
            seen |= 1u << results[i].index;
        }
        if (count == 0) OK(kvrail_reader_wait(b.reader, 100000000));
    }
    OK(kvrail_reader_query(b.reader, &info));
    CHECK(info.in_flight == 0);
    OK(kvrail_reader_unregister(b.reader, region));
}

int main(void) {
    const kvrail_layout *layout = pages_of(KVRAIL_AXIS_LAYER, KVRAIL_AXIS_TOKEN);
    const char *transports[] = {"shm:2", "tcp:127.0.0.1:1"};
    for (size_t i = 0; i < COUNT(transports); i++) {
        struct both b = start(transports[i], layout);
        growing(b);
        plans(b, layout);
        pools(b, layout);
        withdrawn(b);
        end(b);
    }
    return verdict("flows");
}
