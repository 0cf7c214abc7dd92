/* Pages by key: put, get, exists, remove, gets that are begun, pools of the caller's memory, and every
 * violation that can be detected. Bytes are compared. */
#define _GNU_SOURCE
#include "node.h"

#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct memory engine, other;

/* One node stores pages, another one gets them. */
static void two_nodes(void) {
    kvrail_pool pool = {.layout = pages, .slots = SLOTS};
    kvrail_node *owner = start("owner", &pool, "embedded");
    char address[80], directory[100];
    OK(kvrail_node_address(owner, address, sizeof address));
    snprintf(directory, sizeof directory, "embedded:%s", address);
    kvrail_node *reader = start("reader", NULL, directory);
    char nothing[4];
    OK(kvrail_node_address(reader, nothing, sizeof nothing));
    CHECK(nothing[0] == 0);

    uint32_t space = 9, there = 9, again = 9;
    OK(kvrail_node_space(owner, pages, "model", "bf16", &space));
    OK(kvrail_node_space(owner, pages, "model", "fp8", &there));
    CHECK(there != space);
    OK(kvrail_node_space(owner, pages, "model", "bf16", &again));
    CHECK(again == space);
    OK(kvrail_node_space(reader, pages, "model", "bf16", &there));

    const uint8_t *regions[2 * PAGES];
    for (int i = 0; i < PAGES; i++) {
        regions[2 * i] = k_bytes[i];
        regions[2 * i + 1] = v_bytes[i];
    }
    int32_t statuses[PAGES];
    kvrail_put_counts put;
    kvrail_page_keys keys = keys_of(0, 6);
    OK(kvrail_node_put(owner, space, &keys, regions, statuses, &put));
    CHECK(put.stored == 6 && put.present == 0 && put.leading == 6);
    for (int i = 0; i < 6; i++) CHECK(statuses[i] == KVRAIL_OK);
    OK(kvrail_node_put(owner, space, &keys, regions, statuses, &put));
    CHECK(put.stored == 0 && put.present == 6 && put.leading == 6);
    OK(kvrail_node_flush(owner, 5 * SECOND));

    size_t leading = 99, removed = 99;
    keys = keys_of(0, PAGES);
    OK(kvrail_node_exists(reader, there, &keys, SECOND, statuses, &leading));
    CHECK(leading == 6 && statuses[5] == KVRAIL_OK && statuses[6] == 7200);
    kvrail_page_keys third = keys_of(3, 1);
    OK(kvrail_node_remove(owner, space, &third, &removed));
    CHECK(removed == 1);

    uint32_t places = register_memory(reader, &engine), indices[PAGES];
    for (uint32_t i = 0; i < PAGES; i++) indices[i] = PAGES - 1 - i;
    kvrail_get_counts got;
    OK(kvrail_node_get(reader, there, &keys, places, indices, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 5 && got.leading_hits == 3 && got.unsettled == 0);
    for (int i = 0; i < PAGES; i++) {
        if (i == 3 || i >= 6) {
            CHECK(statuses[i] == 7200 || statuses[i] == 7206);
        } else {
            CHECK(statuses[i] == KVRAIL_OK && holds(&engine, PAGES - 1 - i, i));
        }
    }
    /* The owner's own pages, by a copy; and keys of several lengths. */
    uint32_t own = register_memory(owner, &other), lengths[] = {KEY_BYTES, KEY_BYTES};
    keys = keys_of(1, 2);
    keys.lengths = lengths;
    OK(kvrail_node_get(owner, space, &keys, own, indices, SECOND, statuses, &got));
    CHECK(got.hits == 2 && holds(&other, PAGES - 1, 1) && holds(&other, PAGES - 2, 2));

    /* Out of registered memory. */
    memcpy(other.k[0], k_bytes[7], PART);
    memcpy(other.v[0], v_bytes[7], PART);
    keys = keys_of(7, 1);
    uint32_t zero = 0;
    OK(kvrail_node_put_places(owner, space, &keys, own, &zero, statuses, &put));
    CHECK(put.stored == 1 && statuses[0] == KVRAIL_OK);
    OK(kvrail_node_flush(owner, 5 * SECOND));
    OK(kvrail_node_get(reader, there, &keys, places, &zero, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 1 && holds(&engine, 0, 7));

    /* Gets that are begun, with the descriptor. */
    memset(&engine, 0, sizeof engine);
    int fd = -1;
    OK(kvrail_node_fd(reader, &fd));
    uint64_t tickets[3];
    for (uint32_t i = 0; i < 3; i++) {
        keys = keys_of(i, 1);
        OK(kvrail_node_begin_get(reader, there, &keys, places, &i, 5 * SECOND, 70 + i, &tickets[i]));
    }
    for (size_t seen = 0; seen < 3;) {
        struct pollfd poll_for = {.fd = fd, .events = POLLIN};
        CHECK(poll(&poll_for, 1, 10000) == 1);
        kvrail_ended_get ended[2];
        size_t count;
        OK(kvrail_node_ended(reader, ended, 2, &count));
        for (size_t i = 0; i < count; i++) {
            CHECK(ended[i].tag >= 70 && ended[i].tag < 73 && tickets[ended[i].tag - 70] == ended[i].ticket);
            EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_end_get(reader, ended[i].ticket, 0, statuses, 2, &got));
            OK(kvrail_node_end_get(reader, ended[i].ticket, 0, statuses, 1, &got));
            CHECK(got.hits == 1 && statuses[0] == KVRAIL_OK);
            CHECK(holds(&engine, (int)ended[i].tag - 70, (int)ended[i].tag - 70));
            EXPECT(KVRAIL_ERROR_TICKET, kvrail_node_end_get(reader, ended[i].ticket, 0, statuses, 1, &got));
        }
        seen += count;
    }
    struct pollfd quiet = {.fd = fd, .events = POLLIN};
    CHECK(poll(&quiet, 1, 0) == 0);
    /* A wrong count changes nothing: the get is still to be named. */
    uint64_t ticket;
    kvrail_ended_get last;
    size_t named = 0;
    keys = keys_of(0, 1);
    OK(kvrail_node_begin_get(reader, there, &keys, places, &zero, 5 * SECOND, 79, &ticket));
    CHECK(poll(&quiet, 1, 10000) == 1);
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_end_get(reader, ticket, 0, statuses, 2, &got));
    CHECK(poll(&quiet, 1, 0) == 1);
    OK(kvrail_node_ended(reader, &last, 1, &named));
    CHECK(named == 1 && last.ticket == ticket && last.tag == 79);
    OK(kvrail_node_end_get(reader, ticket, 0, statuses, 1, &got));
    CHECK(got.hits == 1 && poll(&quiet, 1, 0) == 0);
    OK(kvrail_node_begin_get(reader, there, &keys, places, &zero, 5 * SECOND, 0, &ticket));
    OK(kvrail_node_end_get(reader, ticket, 10 * SECOND, statuses, 1, &got));
    CHECK(got.hits == 1 && poll(&quiet, 1, 0) == 0);
    OK(kvrail_node_begin_get(reader, there, &keys, places, &zero, 5 * SECOND, 0, &ticket));
    OK(kvrail_node_abandon_get(reader, ticket));
    EXPECT(KVRAIL_ERROR_TICKET, kvrail_node_abandon_get(reader, ticket));
    OK(kvrail_node_settle(reader, places, &zero, 1, 10 * SECOND));

    kvrail_node_stats stats = {.struct_bytes = sizeof stats};
    OK(kvrail_node_query(owner, &stats));
    CHECK(stats.slots == SLOTS && stats.pages == 6 && stats.puts == 7 && stats.removed == 1);
    CHECK(stats.hits_own_pool == 2 && stats.put_bytes == 7 * PAGE && stats.connected_readers >= 1);
    OK(kvrail_node_query(reader, &stats));
    CHECK(stats.hits_cache + stats.hits_directory >= 5 + 1 + 3 + 2 && stats.misses == 3);
    CHECK(stats.misses_by_reason[0] + stats.misses_by_reason[6] == 3);

    uint64_t cleared;
    OK(kvrail_node_clear(owner, &cleared));
    CHECK(cleared == 6);
    keys = keys_of(0, PAGES);
    OK(kvrail_node_get(reader, there, &keys, places, indices, SECOND, statuses, &got));
    CHECK(got.hits == 0 && got.leading_hits == 0);
    OK(kvrail_node_unregister(reader, places));
    EXPECT(KVRAIL_ERROR_PLACES, kvrail_node_unregister(reader, places));
    /* Its number never names other memory. */
    uint32_t later = register_memory(reader, &engine);
    CHECK(later != places);
    EXPECT(KVRAIL_ERROR_PLACES, kvrail_node_get(reader, there, &keys, places, indices, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_PLACES, kvrail_node_unregister(reader, places));

    /* A child of a fork forgets its copy, and the node goes on. */
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(kvrail_node_close(reader) != KVRAIL_OK || kvrail_node_close(owner) != KVRAIL_OK);
    }
    int ended_with = -1;
    CHECK(waitpid(child, &ended_with, 0) == child && ended_with == 0);
    keys = keys_of(0, 1);
    OK(kvrail_node_put(owner, space, &keys, regions, statuses, &put));
    OK(kvrail_node_flush(owner, 5 * SECOND));
    OK(kvrail_node_get(reader, there, &keys, later, indices, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 1 && holds(&engine, PAGES - 1, 0));
    OK(kvrail_node_close(reader));
    OK(kvrail_node_close(owner));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_node_close(owner));
}

/* The caller's memory as a pool. */
static void engine_pool(void) {
    kvrail_memory *memory;
    OK(kvrail_memory_host((unsigned char *)&other, sizeof other, &memory));
    kvrail_pool_region regions[] = {
        {.memory = memory, .bytes = sizeof other.k}, {.memory = memory, .first = sizeof other.k},
    };
    kvrail_pool pool = {.layout = pages, .regions = regions, .region_count = 2};
    kvrail_keys group = {.hex = KEY};
    kvrail_node_config config = {
        .struct_bytes = sizeof config, .name = "engine", .transport = "shm:1", .keys = &group,
        .tag_secret_hex = SECRET, .directory = "embedded", .pools = &pool, .pool_count = 1,
        .permit_any_reader = 1, .cache_ttl_ns = KVRAIL_NO_CACHE,
    };
    kvrail_node *owner = NULL;
    OK(kvrail_node_start(&config, &owner));
    char address[80], directory[100];
    OK(kvrail_node_address(owner, address, sizeof address));
    snprintf(directory, sizeof directory, "embedded:%s", address);
    kvrail_node *reader = start("reader", NULL, directory);
    uint32_t space, there, slots[] = {2, 5}, beyond = PAGES;
    OK(kvrail_node_space(owner, pages, "m", NULL, &space));
    OK(kvrail_node_space(reader, pages, "m", NULL, &there));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_begin_slots(owner, 0, &beyond, 1));
    EXPECT(KVRAIL_ERROR_NO_POOL, kvrail_node_begin_slots(owner, 1, slots, 2));
    OK(kvrail_node_begin_slots(owner, 0, slots, 2));
    for (int i = 0; i < 2; i++) {
        memcpy(other.k[slots[i]], k_bytes[i], PART);
        memcpy(other.v[slots[i]], v_bytes[i], PART);
    }
    int32_t statuses[2];
    kvrail_page_keys keys = keys_of(0, 2);
    const kvrail_layout *opaque;
    uint32_t of_opaque;
    OK(kvrail_layout_opaque(PAGE, &opaque));
    OK(kvrail_node_space(owner, opaque, "m", NULL, &of_opaque));
    EXPECT(KVRAIL_ERROR_SPACE_LAYOUT, kvrail_node_publish_slots(owner, 0, of_opaque, &keys, slots, statuses));
    OK(kvrail_node_publish_slots(owner, 0, space, &keys, slots, statuses));
    CHECK(statuses[0] == KVRAIL_OK && statuses[1] == KVRAIL_OK);
    OK(kvrail_node_publish_slots(owner, 0, space, &keys, slots, statuses));
    CHECK(statuses[0] == 7121); /* a page is published there */
    OK(kvrail_node_flush(owner, 5 * SECOND));
    uint32_t places = register_memory(reader, &engine), to[] = {0, 1};
    kvrail_get_counts got;
    OK(kvrail_node_get(reader, there, &keys, places, to, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 2 && holds(&engine, 0, 0) && holds(&engine, 1, 1));
    OK(kvrail_node_begin_slots(owner, 0, slots, 1));
    OK(kvrail_node_flush(owner, 5 * SECOND));
    OK(kvrail_node_get(reader, there, &keys, places, to, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 1 && statuses[0] != KVRAIL_OK && statuses[1] == KVRAIL_OK);
    kvrail_put_counts put;
    const uint8_t *page[] = {k_bytes[0], v_bytes[0], k_bytes[1], v_bytes[1]};
    EXPECT(KVRAIL_ERROR_NO_OWN_POOL, kvrail_node_put(owner, space, &keys, page, statuses, &put));
    OK(kvrail_node_close(reader));
    OK(kvrail_node_close(owner));
    OK(kvrail_memory_release(memory));
}

static void misuse(void) {
    kvrail_keys group = {.hex = KEY};
    kvrail_pool pool = {.layout = pages, .slots = SLOTS};
    kvrail_node_config config = {
        .struct_bytes = sizeof config, .name = "n", .transport = "shm:1", .keys = &group, .pools = &pool, .pool_count = 1,
    };
    kvrail_node *node = NULL;
    EXPECT(KVRAIL_ERROR_KEY, kvrail_node_start(&config, &node));
    config.tag_secret_hex = "no";
    CHECK(kvrail_node_start(&config, &node) != KVRAIL_OK); /* no 64 digits */
    config.tag_secret_hex = SECRET;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_start(&config, NULL));
    config.directory = "yellow pages";
    EXPECT(KVRAIL_ERROR_DIRECTORY, kvrail_node_start(&config, &node));
    config.directory = "none";
    config.transport = "pigeon:1";
    EXPECT(KVRAIL_ERROR_TRANSPORT, kvrail_node_start(&config, &node));
    config.transport = "shm:1";
    config.readers = 65;
    EXPECT(7221, kvrail_node_start(&config, &node));
    config.readers = 0;
    config.pool_count = 0;
    EXPECT(7220, kvrail_node_start(&config, &node));
    config.pool_count = 1;
    CHECK(node == NULL);
    OK(kvrail_node_start(&config, &node));

    uint32_t space, other_space, index = 0, twice[] = {1, 1};
    int32_t statuses[2];
    kvrail_get_counts got;
    kvrail_put_counts put;
    size_t leading;
    const kvrail_layout *opaque;
    OK(kvrail_layout_opaque(PAGE, &opaque));
    OK(kvrail_node_space(node, pages, "m", NULL, &space));
    OK(kvrail_node_space(node, opaque, "m", NULL, &other_space));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_space(node, pages, NULL, NULL, &space));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_node_space((kvrail_node *)&config, pages, "m", NULL, &space));
    uint32_t places = register_memory(node, &engine), none, none_count;
    kvrail_destination to = {.address = engine.k[0], .bytes = PAGE};
    EXPECT(7230, kvrail_node_register(node, opaque, &to, 1, -1, &none, &none_count));
    kvrail_page_keys keys = keys_of(0, 1);
    EXPECT(KVRAIL_ERROR_SPACE, kvrail_node_get(node, 77, &keys, places, &index, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_PLACES, kvrail_node_get(node, space, &keys, 77, &index, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_SPACE_LAYOUT, kvrail_node_get(node, other_space, &keys, places, &index, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_get(node, space, NULL, places, &index, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_get(node, space, &keys, places, NULL, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_get(node, space, &keys, places, &index, SECOND, NULL, &got));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_get(node, space, &keys, places, &index, SECOND, statuses, NULL));
    OK(kvrail_node_get(node, space, &keys, places, &index, SECOND, statuses, &got));
    CHECK(got.hits == 0 && statuses[0] == 7201);
    keys = keys_of(0, 2);
    EXPECT(KVRAIL_ERROR_PLACE_BUSY, kvrail_node_get(node, space, &keys, places, twice, SECOND, statuses, &got));
    twice[0] = PAGES;
    EXPECT(KVRAIL_ERROR_PLACE_BUSY, kvrail_node_get(node, space, &keys, places, twice, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_PLACE_BUSY, kvrail_node_settle(node, places, twice, 1, SECOND));
    keys.byte_count -= 1;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_exists(node, space, &keys, SECOND, statuses, &leading));
    uint32_t lengths[] = {0, 2 * KEY_BYTES};
    keys = keys_of(0, 2);
    keys.lengths = lengths;
    EXPECT(7000, kvrail_node_exists(node, space, &keys, SECOND, statuses, &leading));
    keys = keys_of(0, 1);
    keys.count = 1u << 20;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_exists(node, space, &keys, SECOND, statuses, &leading));
    keys = keys_of(0, 1);
    const uint8_t *page[] = {k_bytes[0], NULL};
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_put(node, space, &keys, page, statuses, &put));
    EXPECT(KVRAIL_ERROR_NO_OWN_POOL, kvrail_node_put(node, other_space, &keys, page, statuses, &put));
    uint64_t ticket = 3;
    EXPECT(KVRAIL_ERROR_TICKET, kvrail_node_end_get(node, ticket, 0, statuses, 1, &got));
    EXPECT(KVRAIL_ERROR_TICKET, kvrail_node_abandon_get(node, ticket));
    keys.count = keys.byte_count = 0;
    OK(kvrail_node_get(node, space, &keys, places, NULL, SECOND, NULL, &got));
    CHECK(got.hits == 0);
    OK(kvrail_node_close(node));
}

/* Threads share a node. */
struct worker {
    kvrail_node *node;
    uint32_t space, places, first;
    size_t wrong;
};

static void *work(void *argument) {
    struct worker *w = argument;
    kvrail_page_keys keys = keys_of(0, 2);
    uint32_t indices[] = {w->first, w->first + 1};
    for (int round = 0; round < 200; round++) {
        int32_t statuses[2];
        kvrail_get_counts got;
        int32_t status = kvrail_node_get(w->node, w->space, &keys, w->places, indices, 5 * SECOND, statuses, &got);
        if (status != KVRAIL_OK || got.hits != 2) w->wrong++;
        if (!holds(&engine, (int)w->first, 0) || !holds(&engine, (int)w->first + 1, 1)) w->wrong++;
    }
    return NULL;
}

static void threads(void) {
    kvrail_pool pool = {.layout = pages, .slots = SLOTS};
    kvrail_node *owner = start("owner", &pool, "embedded");
    char address[80], directory[100];
    OK(kvrail_node_address(owner, address, sizeof address));
    snprintf(directory, sizeof directory, "embedded:%s", address);
    kvrail_node *reader = start("reader", NULL, directory);
    uint32_t space, there;
    OK(kvrail_node_space(owner, pages, "m", NULL, &space));
    OK(kvrail_node_space(reader, pages, "m", NULL, &there));
    const uint8_t *regions[] = {k_bytes[0], v_bytes[0], k_bytes[1], v_bytes[1]};
    int32_t statuses[2];
    kvrail_put_counts put;
    kvrail_page_keys keys = keys_of(0, 2);
    OK(kvrail_node_put(owner, space, &keys, regions, statuses, &put));
    OK(kvrail_node_flush(owner, 5 * SECOND));
    uint32_t places = register_memory(reader, &engine);
    struct worker workers[4];
    pthread_t ids[4];
    for (uint32_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){.node = reader, .space = there, .places = places, .first = 2 * i};
        CHECK(pthread_create(&ids[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
        CHECK(workers[i].wrong == 0);
    }
    OK(kvrail_node_close(owner));
    OK(kvrail_node_close(reader));
}

int main(void) {
    fill_pages();
    pages = k_and_v();
    two_nodes();
    engine_pool();
    misuse();
    threads();
    return verdict("node");
}
