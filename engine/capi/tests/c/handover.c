/* A request is handed over while its pages are computed: layer by layer, and every byte is compared.
 * And every way in which a hand-over ends. */
#define _POSIX_C_SOURCE 200809L
#include "both.h"

#include <pthread.h>
#include <time.h>

static const uint64_t SOON = 10000000000; /* 10 s, which nothing here needs */
static const kvrail_request_id REQUEST = {4711, 1};

static void pause_shortly(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* The next event of a request that was taken. */
static kvrail_taking_event next(struct both b) {
    kvrail_taking_event event = {0};
    for (int tries = 0; tries < 10000; tries++) {
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_next_taking_event(b.reader, &event));
        if (event.kind != KVRAIL_TAKING_NONE) return event;
        pause_shortly();
    }
    CHECK(!"an event comes");
    return event;
}

static uint64_t take(struct both b, kvrail_request_id request) {
    uint64_t taking = 0;
    OK(kvrail_reader_take(b.reader, b.peer, &request, KVRAIL_CLASS_URGENT, SOON, &taking));
    CHECK(taking != 0);
    return taking;
}

/* Two pages grow layer by layer, and are read so. */
static void layers(struct both b) {
    enum { PAGES = 2, LAYER = TOKENS * ROW };
    static unsigned char got[PAGES * LAYER];
    kvrail_destination to = {.address = got, .bytes = sizeof got};
    uint32_t region, slots;
    OK(kvrail_reader_register_bytes(b.reader, &to, LAYER, -1, &region, &slots));
    uint64_t taking = take(b, REQUEST), handover = 0; /* taken before it is open */
    OK(kvrail_handover_open(b.publisher, &REQUEST, &handover));
    EXPECT(4201, kvrail_handover_open(b.publisher, &REQUEST, &handover));
    kvrail_slot_bytes pages[PAGES];
    kvrail_location at[PAGES], blocks[PAGES + 1];
    for (uint32_t slot = 0; slot < PAGES; slot++) {
        kvrail_key_tag tag = {slot + 1, 9};
        OK(kvrail_publisher_begin(b.publisher, 0, slot, &tag, &pages[slot]));
        OK(kvrail_publisher_grow(b.publisher, 0, slot, &at[slot]));
    }
    OK(kvrail_handover_append(b.publisher, handover, at, PAGES));
    CHECK(next(b).kind == KVRAIL_TAKING_TAKEN);
    kvrail_taking_event event = next(b);
    CHECK(event.kind == KVRAIL_TAKING_GROWN && event.taking == taking && event.first == 0 && event.count == PAGES);
    size_t count = 0;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t parts = layer + 1 == LAYERS ? KVRAIL_WHOLE_PAGE : layer + 1;
        for (uint32_t slot = 0; slot < PAGES; slot++) {
            write_layer(pages[slot].address, layer);
            if (layer + 1 == LAYERS) {
                OK(kvrail_publisher_publish(b.publisher, 0, slot, &at[slot]));
            } else {
                OK(kvrail_publisher_set_ready(b.publisher, 0, slot, layer + 1, &at[slot]));
            }
        }
        OK(kvrail_handover_set_ready(b.publisher, handover, 0, PAGES, parts));
        event = next(b);
        CHECK(event.kind == KVRAIL_TAKING_READY && event.count == PAGES && event.parts == parts);
        OK(kvrail_reader_blocks(b.reader, taking, 0, blocks, COUNT(blocks), &count));
        CHECK(count == PAGES);
        memset(got, 0, sizeof got);
        for (uint32_t i = 0; i < PAGES; i++) {
            CHECK(blocks[i].slot == i && blocks[i].ready == parts);
            kvrail_read read = {
                .peer = b.peer, .region = region, .slot = i, .location = blocks[i], .needs = layer + 1,
                .part_offset = layer * LAYER, .part_bytes = LAYER,
            };
            OK(fetch(b, &read));
        }
        for (uint32_t i = 0; i < sizeof got; i++) CHECK(got[i] == value(layer, i % LAYER / ROW));
    }
    OK(kvrail_reader_blocks(b.reader, taking, 1, blocks, COUNT(blocks), &count));
    CHECK(count == 1 && blocks[0].slot == 1);
    OK(kvrail_handover_complete(b.publisher, handover));
    EXPECT(4204, kvrail_handover_append(b.publisher, handover, at, 1));
    CHECK(next(b).kind == KVRAIL_TAKING_COMPLETE);

    kvrail_ended_handover ended = {.handover = 1};
    OK(kvrail_handover_next_ended(b.publisher, 0, &ended, NULL, 0));
    CHECK(ended.handover == 0); /* not yet */
    OK(kvrail_reader_done(b.reader, taking));
    EXPECT(KVRAIL_ERROR_TAKING, kvrail_reader_done(b.reader, taking));
    EXPECT(KVRAIL_ERROR_BUFFER, kvrail_handover_next_ended(b.publisher, SOON, &ended, blocks, 1));
    CHECK(ended.handover == handover && ended.blocks == PAGES);
    ended.handover = 0;
    OK(kvrail_handover_next_ended(b.publisher, 0, &ended, blocks, COUNT(blocks)));
    CHECK(ended.handover == handover && ended.outcome == KVRAIL_HANDOVER_DONE && ended.blocks == PAGES);
    CHECK(ended.request.low == REQUEST.low && ended.request.high == REQUEST.high);
    CHECK(blocks[1].slot == 1 && blocks[1].generation == at[1].generation);
    /* The pages are misses now, and the slots can be begun. */
    kvrail_read read = {
        .peer = b.peer, .region = region, .location = blocks[0], .needs = LAYERS, .part_bytes = LAYER,
    };
    int32_t missed = fetch(b, &read);
    CHECK(missed == KVRAIL_MISS_OVERWRITING || missed == KVRAIL_MISS_GENERATION);
    kvrail_key_tag tag = {1, 1};
    OK(kvrail_publisher_begin(b.publisher, 0, 0, &tag, NULL));
    OK(kvrail_publisher_abandon(b.publisher, 0, 0));
    EXPECT(4203, kvrail_handover_complete(b.publisher, handover));
    OK(kvrail_reader_unregister(b.reader, region));
}

static uint64_t opened(struct both b, kvrail_request_id request) {
    uint64_t handover = 0;
    OK(kvrail_handover_open(b.publisher, &request, &handover));
    return handover;
}

static void ends_with(struct both b, uint64_t handover, uint32_t outcome, uint32_t reason) {
    kvrail_ended_handover ended;
    OK(kvrail_handover_next_ended(b.publisher, SOON, &ended, NULL, 0));
    CHECK(ended.handover == handover && ended.outcome == outcome && ended.reason == reason && ended.blocks == 0);
}

/* Every other way to end. */
static void endings(struct both b) {
    kvrail_request_id one = {1, 0}, two = {2, 0}, three = {3, 0};
    uint64_t handover = opened(b, one), taking = take(b, one);
    CHECK(next(b).kind == KVRAIL_TAKING_TAKEN);
    OK(kvrail_handover_abort(b.publisher, handover));
    kvrail_taking_event event = next(b);
    CHECK(event.taking == taking && event.kind == KVRAIL_TAKING_ENDED && event.reason == KVRAIL_END_ABORTED);
    ends_with(b, handover, KVRAIL_HANDOVER_ABORTED, 0);
    EXPECT(KVRAIL_ERROR_TAKING, kvrail_reader_give_up(b.reader, taking, KVRAIL_GIVE_UP_FAILED));

    handover = opened(b, two);
    taking = take(b, two);
    CHECK(next(b).kind == KVRAIL_TAKING_TAKEN);
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_give_up(b.reader, taking, 0));
    OK(kvrail_reader_give_up(b.reader, taking, KVRAIL_GIVE_UP_NO_ROOM));
    ends_with(b, handover, KVRAIL_HANDOVER_GIVEN_UP, KVRAIL_GIVE_UP_NO_ROOM);

    taking = take(b, three);
    OK(kvrail_handover_reject(b.publisher, &three));
    event = next(b);
    CHECK(event.taking == taking && event.kind == KVRAIL_TAKING_ENDED && event.reason == KVRAIL_END_REJECTED);
}

static void misuse(struct both b) {
    kvrail_request_id request = {5, 5};
    kvrail_ended_handover ended;
    kvrail_location at = {0};
    uint64_t handover = opened(b, request), taking = 0;
    size_t count;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_handover_open(b.publisher, NULL, &handover));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_handover_open(b.publisher, &request, NULL));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_handover_open(NULL, &request, &handover));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_handover_append(b.publisher, handover, NULL, 1));
    EXPECT(4218, kvrail_handover_append(b.publisher, handover, &at, 1)); /* no publication */
    EXPECT(4203, kvrail_handover_append(b.publisher, 999, &at, 1));
    EXPECT(4206, kvrail_handover_set_ready(b.publisher, handover, 0, 1, 1));
    EXPECT(4206, kvrail_handover_set_ready(b.publisher, handover, UINT32_MAX, UINT32_MAX, 1));
    EXPECT(4201, kvrail_handover_reject(b.publisher, &request));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_handover_next_ended(b.publisher, 0, NULL, NULL, 0));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_handover_next_ended((kvrail_publisher *)&at, 0, &ended, NULL, 0));
    EXPECT(KVRAIL_ERROR_PEER, kvrail_reader_take(b.reader, 77, &request, 0, 0, &taking));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_take(b.reader, b.peer, &request, 9, 0, &taking));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_take(b.reader, b.peer, NULL, 0, 0, &taking));
    EXPECT(KVRAIL_ERROR_TAKING, kvrail_reader_blocks(b.reader, 0, 0, &at, 1, &count));
    EXPECT(KVRAIL_ERROR_TAKING, kvrail_reader_done(b.reader, 12345));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_next_taking_event(b.reader, NULL));
    kvrail_request_id unknown = {6, 6};
    taking = take(b, unknown);
    EXPECT(4216, kvrail_reader_done(b.reader, taking)); /* the producer waits for the request */
    OK(kvrail_reader_give_up(b.reader, taking, KVRAIL_GIVE_UP_CLIENT_GONE));
    taking = take(b, request);
    CHECK(next(b).kind == KVRAIL_TAKING_TAKEN);
    /* What was taken from a peer ends with its session. */
    OK(kvrail_reader_disconnect(b.reader, b.peer));
    EXPECT(KVRAIL_ERROR_TAKING, kvrail_reader_done(b.reader, taking));
    ends_with(b, handover, KVRAIL_HANDOVER_SESSION_LOST, 0);
}

static void *waits(void *publisher) {
    kvrail_ended_handover ended;
    int32_t status = kvrail_handover_next_ended(publisher, SOON, &ended, NULL, 0);
    return status == KVRAIL_ERROR_HANDLE ? NULL : publisher;
}

int main(void) {
    const kvrail_layout *layout = pages_of(KVRAIL_AXIS_LAYER, KVRAIL_AXIS_TOKEN);
    const char *transports[] = {"shm:2", "tcp:127.0.0.1:1"};
    for (size_t i = 0; i < COUNT(transports); i++) {
        struct both b = start(transports[i], layout);
        layers(b);
        endings(b);
        misuse(b);
        /* A thread that waits does not keep the publisher from being closed, and is told of it. */
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, waits, b.publisher) == 0);
        end(b);
        void *failed;
        CHECK(pthread_join(thread, &failed) == 0 && failed == NULL);
    }
    return verdict("handover");
}
