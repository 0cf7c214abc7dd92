/* Groups of pages of several layouts, all or nothing, and memory that several threads release. Bytes
 * are compared. */
#define _GNU_SOURCE
#include "node.h"

#include <pthread.h>

static struct memory engine;

/* Groups of pages of two layouts: a page of K and V, and a small one for the same tokens. */
enum { STATE = 512 };
static unsigned char states[PAGES][STATE];

static void groups(void) {
    const kvrail_layout *both[2] = {pages, NULL};
    OK(kvrail_layout_opaque(STATE, &both[1]));
    kvrail_pool pools[] = {{.layout = both[0], .slots = SLOTS}, {.layout = both[1], .slots = SLOTS}};
    kvrail_keys keys = {.hex = KEY};
    kvrail_node_config config = {
        .struct_bytes = sizeof config, .name = "owner", .transport = "shm:1", .keys = &keys,
        .tag_secret_hex = SECRET, .directory = "embedded", .pools = pools, .pool_count = 2,
    };
    kvrail_node *owner = NULL, *reader = NULL;
    OK(kvrail_node_start(&config, &owner));
    char address[80], directory[100];
    OK(kvrail_node_address(owner, address, sizeof address));
    snprintf(directory, sizeof directory, "embedded:%s", address);
    config.name = "reader";
    config.directory = directory;
    config.pools = NULL;
    config.pool_count = 0;
    config.layouts = both;
    config.layout_count = 2;
    OK(kvrail_node_start(&config, &reader));
    uint32_t large, small, to_large, to_small;
    OK(kvrail_node_space(owner, both[0], "hybrid", NULL, &large));
    OK(kvrail_node_space(owner, both[1], "hybrid", NULL, &small));
    OK(kvrail_node_space(reader, both[0], "hybrid", NULL, &to_large));
    OK(kvrail_node_space(reader, both[1], "hybrid", NULL, &to_small));

    /* Block 0 has both pages, block 1 the large one alone, block 2 none. */
    unsigned char small_pages[2][STATE];
    memset(small_pages[0], 77, STATE);
    const uint8_t *regions[] = {k_bytes[0], v_bytes[0], k_bytes[1], v_bytes[1]}, *state = small_pages[0];
    int32_t statuses[6];
    kvrail_put_counts put;
    kvrail_page_keys names_of = keys_of(0, 2);
    OK(kvrail_node_put(owner, large, &names_of, regions, statuses, &put));
    CHECK(put.stored == 2);
    names_of = keys_of(0, 1);
    OK(kvrail_node_put(owner, small, &names_of, &state, statuses, &put));
    CHECK(put.stored == 1);
    OK(kvrail_node_flush(owner, 5 * SECOND));

    memset(&engine, 0, sizeof engine);
    uint32_t places = register_memory(reader, &engine), state_places, count;
    kvrail_destination to = {.address = states[0], .bytes = sizeof states};
    OK(kvrail_node_register(reader, both[1], &to, 1, -1, &state_places, &count));
    char six[6][KEY_BYTES];
    kvrail_group_page wanted[6];
    for (uint32_t i = 0; i < 6; i++) {
        memcpy(six[i], names[i / 2], KEY_BYTES);
        wanted[i] = (kvrail_group_page){
            .space = i % 2 ? to_small : to_large, .places = i % 2 ? state_places : places, .index = i / 2,
            .joined = i % 2,
        };
    }
    names_of = (kvrail_page_keys){.bytes = (const uint8_t *)six, .byte_count = sizeof six, .count = 6};
    kvrail_get_counts got;
    uint64_t ticket;
    for (int begun = 0; begun < 2; begun++) {
        memset(statuses, 0xff, sizeof statuses);
        if (begun) {
            OK(kvrail_node_begin_get_groups(reader, &names_of, wanted, 5 * SECOND, 5, &ticket));
            OK(kvrail_node_end_get(reader, ticket, 10 * SECOND, statuses, 6, &got));
        } else {
            OK(kvrail_node_get_groups(reader, &names_of, wanted, 5 * SECOND, statuses, &got));
        }
        CHECK(got.hits == 2 && got.leading_hits == 2 && got.unsettled == 0);
        CHECK(statuses[0] == KVRAIL_OK && statuses[1] == KVRAIL_OK);
        CHECK(holds(&engine, 0, 0) && memcmp(states[0], small_pages[0], STATE) == 0);
        /* The large page of block 1 is there, and its group is not. */
        CHECK(statuses[2] == KVRAIL_MISS_GROUP && statuses[3] == 7200);
        CHECK(statuses[4] == 7200 && statuses[5] == 7200);
        memset(&engine, 0, sizeof engine);
        memset(states, 0, sizeof states);
    }
    /* The same page in a group of its own is a hit. */
    for (int i = 0; i < 6; i++) wanted[i].joined = 0;
    OK(kvrail_node_get_groups(reader, &names_of, wanted, 5 * SECOND, statuses, &got));
    CHECK(got.hits == 3 && statuses[2] == KVRAIL_OK && holds(&engine, 1, 1));

    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_get_groups(reader, &names_of, NULL, SECOND, statuses, &got));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_node_begin_get_groups(reader, &names_of, wanted, SECOND, 0, NULL));
    wanted[0].joined = 1;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_get_groups(reader, &names_of, wanted, SECOND, statuses, &got));
    wanted[0].joined = 0;
    wanted[3].joined = 2;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_get_groups(reader, &names_of, wanted, SECOND, statuses, &got));
    wanted[3].joined = 1;
    wanted[3].places = places;
    EXPECT(KVRAIL_ERROR_SPACE_LAYOUT, kvrail_node_get_groups(reader, &names_of, wanted, SECOND, statuses, &got));
    wanted[3].places = state_places;
    wanted[3].space = 99;
    EXPECT(KVRAIL_ERROR_SPACE, kvrail_node_begin_get_groups(reader, &names_of, wanted, SECOND, 0, &ticket));
    wanted[3].space = to_small;
    wanted[3].index = wanted[1].index;
    EXPECT(KVRAIL_ERROR_PLACE_BUSY, kvrail_node_get_groups(reader, &names_of, wanted, SECOND, statuses, &got));
    /* Every place of a call that is refused is free again. */
    OK(kvrail_node_unregister(reader, state_places));
    OK(kvrail_node_unregister(reader, places));
    OK(kvrail_node_close(reader));
    OK(kvrail_node_close(owner));
}

/* Threads release the same memory: one of them does, and no other answer depends on a race. */
struct releaser {
    kvrail_node *node;
    uint32_t places;
    int32_t status;
};

static void *release(void *argument) {
    struct releaser *r = argument;
    r->status = kvrail_node_unregister(r->node, r->places);
    return NULL;
}

static void releases(void) {
    kvrail_node *node = start("releases", NULL, NULL);
    for (int round = 0; round < 50; round++) {
        struct releaser releasers[3];
        pthread_t ids[3];
        uint32_t places = register_memory(node, &engine);
        int released = 0;
        for (int i = 0; i < 3; i++) {
            releasers[i] = (struct releaser){.node = node, .places = places};
            CHECK(pthread_create(&ids[i], NULL, release, &releasers[i]) == 0);
        }
        for (int i = 0; i < 3; i++) {
            pthread_join(ids[i], NULL);
            released += releasers[i].status == KVRAIL_OK;
            CHECK(releasers[i].status == KVRAIL_OK || releasers[i].status == KVRAIL_ERROR_PLACES);
        }
        CHECK(released == 1);
    }
    OK(kvrail_node_close(node));
}

int main(void) {
    fill_pages();
    pages = k_and_v();
    groups();
    releases();
    return verdict("groups");
}
