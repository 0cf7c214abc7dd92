/* Pages in bulk: ranges of slots that are read by one call, and results of whole batches. Bytes are
 * compared, also of the pages that arrive beside others that do not. */
#define POOL_SLOTS 200
#include "both.h"

enum { WORDS = (SLOTS + 63) / 64, MOST = 256 /* pages of a batch of a reader of this size */ };

static kvrail_location at[SLOTS];
static unsigned char got[SLOTS * PAGE];
static uint32_t region;

/* Publishes a page that is filled with a byte. */
static void publish(struct both b, uint32_t pool, uint32_t slot, unsigned char byte, kvrail_location *location) {
    kvrail_key_tag tag = {slot, byte};
    kvrail_slot_bytes page;
    OK(kvrail_publisher_begin(b.publisher, pool, slot, &tag, &page));
    memset(page.address, byte, PAGE);
    OK(kvrail_publisher_publish(b.publisher, pool, slot, location));
}

static int filled(uint32_t slot, unsigned char byte) {
    const unsigned char *page = got + slot * PAGE;
    return page[0] == byte && memcmp(page, page + 1, PAGE - 1) == 0;
}

static kvrail_read_range range_of(struct both b, uint32_t slot, const kvrail_location *locations, size_t count) {
    kvrail_read_range range = {
        .peer = b.peer, .region = region, .first_slot = slot, .locations = locations, .count = count,
    };
    return range;
}

/* The status of reading these ranges, of which none may be taken if it is an error. */
static int32_t read_ranges(struct both b, const kvrail_read_range *ranges, size_t count, uint64_t *ticket) {
    kvrail_read_options options = {.struct_bytes = sizeof options, .tag = 77};
    return kvrail_reader_read_ranges(b.reader, ranges, count, &options, ticket);
}

static kvrail_batch_result await(struct both b, uint64_t *failed, int32_t *statuses) {
    kvrail_batch_result batch = {0};
    while (batch.pages == 0) {
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_next_batch(b.reader, &batch, failed, failed ? WORDS : 0, statuses, statuses ? SLOTS : 0));
        if (batch.pages == 0) OK(kvrail_reader_wait(b.reader, 100000000));
    }
    return batch;
}

/* Every page of a batch of three ranges that need four words, in another order than that of the
 * slots. */
static void everything(struct both b) {
    kvrail_read_range ranges[] = {
        range_of(b, 100, at, 100), range_of(b, 0, at + 100, 70), range_of(b, 70, at + 170, 30),
    };
    uint64_t ticket, failed[WORDS];
    memset(got, 0, sizeof got);
    memset(failed, 0xff, sizeof failed);
    OK(read_ranges(b, ranges, COUNT(ranges), &ticket));
    EXPECT(KVRAIL_ERROR_SLOT_IN_FLIGHT, read_ranges(b, ranges, 1, NULL));
    kvrail_batch_result batch = await(b, failed, NULL);
    CHECK(batch.ticket == ticket && batch.tag == 77 && batch.pages == SLOTS && batch.failed == 0);
    for (size_t i = 0; i < WORDS; i++) CHECK(failed[i] == 0);
    for (uint32_t i = 0; i < SLOTS; i++) CHECK(filled((i + 100) % SLOTS, (unsigned char)i));
    /* There is no other batch, which needs no places. */
    OK(kvrail_reader_next_batch(b.reader, &batch, NULL, 0, NULL, 0));
    CHECK(batch.pages == 0);
}

/* Pages of a range have been overwritten or are being so: these fail, each for its reason, and the
 * others arrive. */
static void failures_inside(struct both b) {
    kvrail_location stale[SLOTS];
    memcpy(stale, at, sizeof at);
    uint32_t gone[] = {0, 63, 64, 130, SLOTS - 1};
    for (size_t i = 0; i < COUNT(gone); i++) publish(b, 0, gone[i], 0xee, &at[gone[i]]);
    OK(kvrail_publisher_begin(b.publisher, 0, 7, &at[7].tag, NULL));
    kvrail_read_range range = range_of(b, 0, stale, SLOTS);
    uint64_t failed[WORDS];
    int32_t statuses[SLOTS];
    for (int round = 0; round < 3; round++) { /* the slots are used again */
        memset(statuses, 0x55, sizeof statuses);
        OK(read_ranges(b, &range, 1, NULL));
        kvrail_batch_result batch = await(b, failed, statuses);
        CHECK(batch.pages == SLOTS && batch.failed == COUNT(gone) + 1);
        size_t seen = 0;
        for (uint32_t i = 0; i < SLOTS; i++) {
            if (failed[i / 64] >> i % 64 & 1) {
                CHECK(statuses[i] == (i == 7 ? KVRAIL_MISS_OVERWRITING : KVRAIL_MISS_GENERATION));
                seen++;
            } else {
                CHECK(statuses[i] == 0x55555555 && filled(i, (unsigned char)i));
            }
        }
        CHECK(seen == batch.failed && failed[WORDS - 1] >> SLOTS % 64 == 0);
        for (size_t i = 0; i < COUNT(gone); i++) CHECK(failed[gone[i] / 64] >> gone[i] % 64 & 1);
    }
    /* Without validation they are read whatever their entries say. */
    range.flags = KVRAIL_READ_UNVALIDATED;
    OK(read_ranges(b, &range, 1, NULL));
    CHECK(await(b, failed, statuses).failed == 0 && filled(64, 0xee) && filled(65, 65));
    OK(kvrail_publisher_publish(b.publisher, 0, 7, &at[7]));
    for (size_t i = 0; i < COUNT(gone); i++) publish(b, 0, gone[i], (unsigned char)gone[i], &at[gone[i]]);
}

/* A call that is refused has taken no slot: all of them can be read into at once. */
static void refused(struct both b) {
    kvrail_read_range good = range_of(b, 0, at, 10), ranges[2] = {good, range_of(b, 10, at + 10, 10)};
    kvrail_read_range *bad = &ranges[1];
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_read_ranges(b.reader, NULL, 1, NULL, NULL));
    int32_t empty = kvrail_reader_read_ranges(b.reader, NULL, 0, NULL, NULL);
    CHECK(strcmp(kvrail_status_name(empty), "SubmitError::Empty") == 0);
    bad->locations = NULL;
    EXPECT(KVRAIL_ERROR_NULL, read_ranges(b, ranges, 2, NULL));
    bad->locations = (const kvrail_location *)((const char *)at + 1);
    EXPECT(KVRAIL_ERROR_ALIGNMENT, read_ranges(b, ranges, 2, NULL));
    bad->locations = at + 10;
    bad->flags = 2;
    EXPECT(KVRAIL_ERROR_VALUE, read_ranges(b, ranges, 2, NULL));
    bad->flags = 0;
    /* Counts: none at all, more than the region has, than a batch holds, than a number holds. */
    good.count = 0;
    CHECK(read_ranges(b, &good, 1, NULL) == empty);
    good.count = 10;
    bad->first_slot = SLOTS - 9;
    EXPECT(KVRAIL_ERROR_SLOT, read_ranges(b, ranges, 2, NULL));
    bad->first_slot = UINT32_MAX;
    EXPECT(KVRAIL_ERROR_SLOT, read_ranges(b, ranges, 2, NULL));
    bad->first_slot = 10;
    bad->count = MOST - 9;
    EXPECT(KVRAIL_ERROR_TOO_MANY_READS, read_ranges(b, ranges, 2, NULL));
    bad->count = SIZE_MAX;
    EXPECT(KVRAIL_ERROR_TOO_MANY_READS, read_ranges(b, ranges, 2, NULL));
    bad->count = 10;
    /* Slots of no region, and of another one, whose layout the pages do not have. */
    bad->region = 9;
    EXPECT(KVRAIL_ERROR_REGION, read_ranges(b, ranges, 2, NULL));
    static unsigned char other[PAGE];
    kvrail_destination to = {.address = other, .bytes = sizeof other};
    const kvrail_layout *turned = pages_of(KVRAIL_AXIS_TOKEN, KVRAIL_AXIS_LAYER);
    OK(kvrail_reader_register(b.reader, turned, &to, 1, -1, &bad->region, NULL));
    bad->first_slot = 0;
    bad->count = 1;
    CHECK(read_ranges(b, ranges, 2, NULL) != KVRAIL_OK);
    OK(kvrail_reader_unregister(b.reader, bad->region));
    *bad = range_of(b, 10, at + 10, 10);
    /* A slot twice in a call, in one range after the other. */
    bad->first_slot = 9;
    EXPECT(KVRAIL_ERROR_SLOT_IN_FLIGHT, read_ranges(b, ranges, 2, NULL));
    char text[200];
    kvrail_last_error(text, sizeof text);
    CHECK(strstr(text, "page 0 of range 1: slot 9 of region 0") != NULL);
    bad->first_slot = 10;
    /* Peers, pools and slots that are not there, and a page that grows, in the middle. */
    kvrail_location wrong[10];
    memcpy(wrong, at + 10, sizeof wrong);
    bad->locations = wrong;
    bad->peer ^= 0x10000;
    EXPECT(KVRAIL_ERROR_PEER, read_ranges(b, ranges, 2, NULL));
    bad->peer ^= 0x10000;
    wrong[5].pool = 6;
    EXPECT(KVRAIL_ERROR_POOL, read_ranges(b, ranges, 2, NULL));
    wrong[5].pool = 0;
    wrong[5].slot = SLOTS;
    CHECK(strcmp(kvrail_status_name(read_ranges(b, ranges, 2, NULL)), "BlockError::Slot") == 0);
    kvrail_last_error(text, sizeof text);
    CHECK(strstr(text, "page 5 of range 1: ") != NULL);
    wrong[5] = at[15];
    wrong[5].ready = 1;
    EXPECT(2077, read_ranges(b, ranges, 2, NULL));
    kvrail_last_error(text, sizeof text);
    CHECK(strstr(text, "page 5 of range 1: ") != NULL);
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_read_ranges(NULL, ranges, 2, NULL, NULL));
    kvrail_read_options options = {.struct_bytes = sizeof options, .flags = 8};
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_read_ranges(b.reader, ranges, 2, &options, NULL));
    everything(b);
}

/* Results for which there is no room stay; both ways of taking results take those of both ways of
 * reading. */
static void results(struct both b) {
    kvrail_read_range range = range_of(b, 0, at, 65);
    kvrail_batch_result batch;
    uint64_t failed[WORDS];
    int32_t statuses[SLOTS];
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_next_batch(b.reader, NULL, NULL, 0, NULL, 0));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_next_batch(b.reader, &batch, NULL, 1, NULL, 0));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_next_batch(b.reader, &batch, NULL, 0, NULL, 1));
    uint64_t ticket;
    OK(read_ranges(b, &range, 1, &ticket));
    int32_t status = KVRAIL_OK;
    for (batch.pages = 0; status == KVRAIL_OK && batch.pages == 0;) {
        OK(kvrail_reader_poll(b.reader));
        status = kvrail_reader_next_batch(b.reader, &batch, failed, 1, statuses, SLOTS);
        if (status == KVRAIL_OK) OK(kvrail_reader_wait(b.reader, 100000000));
    }
    CHECK(status == KVRAIL_ERROR_BUFFER);
    EXPECT(KVRAIL_ERROR_BUFFER, kvrail_reader_next_batch(b.reader, &batch, failed, 2, statuses, 64));
    EXPECT(KVRAIL_ERROR_SLOT_IN_FLIGHT, read_ranges(b, &range, 1, NULL));
    OK(kvrail_reader_wait(b.reader, 10000000000000)); /* it does not sleep */
    /* Some of its results, and then the whole batch. */
    kvrail_result some[3];
    size_t count;
    OK(kvrail_reader_results(b.reader, some, 3, &count));
    CHECK(count == 3 && some[2].ticket == ticket && some[2].index == 2 && some[2].slot == 2);
    OK(kvrail_reader_next_batch(b.reader, &batch, failed, 2, statuses, 65));
    CHECK(batch.ticket == ticket && batch.pages == 65 && batch.failed == 0);
    /* Page by page, as early results too. */
    for (int early = 0; early < 2; early++) {
        kvrail_read_options options = {.struct_bytes = sizeof options, .flags = early ? KVRAIL_BATCH_EARLY : 0};
        OK(kvrail_reader_read_ranges(b.reader, &range, 1, &options, NULL));
        uint64_t seen[2] = {0, 0};
        for (size_t all = 0; all < 65; all += count) {
            OK(kvrail_reader_poll(b.reader));
            OK(kvrail_reader_results(b.reader, some, 3, &count));
            for (size_t i = 0; i < count; i++) {
                CHECK(some[i].status == KVRAIL_OK && some[i].slot == some[i].index);
                seen[some[i].index / 64] |= (uint64_t)1 << some[i].index % 64;
            }
            if (count == 0) OK(kvrail_reader_wait(b.reader, 100000000));
        }
        CHECK(seen[0] == UINT64_MAX && seen[1] == 1);
        /* An early batch none of whose results was taken, as a whole. */
        OK(kvrail_reader_read_ranges(b.reader, &range, 1, &options, NULL));
        CHECK(await(b, failed, statuses).pages == 65);
        OK(kvrail_reader_results(b.reader, some, 3, &count));
        CHECK(count == 0);
    }
    /* A batch that was read page by page, with slots in no order. */
    kvrail_read reads[5];
    uint32_t slots[] = {3, 4, 9, 1, 2};
    for (size_t i = 0; i < 5; i++) {
        reads[i] = (kvrail_read){.peer = b.peer, .region = region, .slot = slots[i], .location = at[i]};
    }
    OK(kvrail_reader_read(b.reader, reads, 5, NULL, NULL));
    CHECK(await(b, failed, NULL).pages == 5 && filled(9, 2) && filled(2, 4));
    everything(b);
}

/* Pages of two pools in one range; and the slots come back when a pool has gone. */
static void two_pools(struct both b, const kvrail_layout *layout) {
    kvrail_pool pool = {.layout = layout, .slots = 3};
    uint32_t number;
    kvrail_event event = {0};
    OK(kvrail_publisher_add_pool(b.publisher, &pool, &number));
    while (event.kind != KVRAIL_EVENT_POOL_CAME) {
        OK(kvrail_reader_wait(b.reader, 100000000));
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_next_event(b.reader, &event));
    }
    kvrail_location mixed[6];
    for (uint32_t i = 0; i < 3; i++) {
        publish(b, number, i, (unsigned char)(0xa0 + i), &mixed[2 * i]);
        mixed[2 * i + 1] = at[50 + i];
    }
    kvrail_read_range range = range_of(b, 20, mixed, 6);
    OK(read_ranges(b, &range, 1, NULL));
    CHECK(await(b, NULL, NULL).failed == 0);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(filled(20 + 2 * i, (unsigned char)(0xa0 + i)) && filled(21 + 2 * i, (unsigned char)(50 + i)));
    }
    OK(kvrail_publisher_withdraw(b.publisher, number, 1000000000));
    while (event.kind != KVRAIL_EVENT_POOL_GONE) {
        OK(kvrail_reader_wait(b.reader, 100000000));
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_next_event(b.reader, &event));
    }
    EXPECT(KVRAIL_ERROR_POOL, read_ranges(b, &range, 1, NULL));
    everything(b);
}

int main(void) {
    const kvrail_layout *layout = pages_of(KVRAIL_AXIS_LAYER, KVRAIL_AXIS_TOKEN);
    const char *transports[] = {"shm:2", "tcp:127.0.0.1:1"};
    for (size_t i = 0; i < COUNT(transports); i++) {
        struct both b = start(transports[i], layout);
        kvrail_destination to = {.address = got, .bytes = sizeof got};
        OK(kvrail_reader_register(b.reader, NULL, &to, 1, -1, &region, NULL));
        for (uint32_t slot = 0; slot < SLOTS; slot++) publish(b, 0, slot, (unsigned char)slot, &at[slot]);
        everything(b);
        failures_inside(b);
        refused(b);
        results(b);
        two_pools(b, layout);
        OK(kvrail_reader_unregister(b.reader, region)); /* no slot is lost */
        end(b);
    }
    return verdict("ranges");
}
