/* Nodes, pages with K and V in regions of their own, and memory for them, for the test programs. */
#ifndef NODE_H
#define NODE_H

#include "check.h"

#define KEY "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
#define SECRET "7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b7b"
#define SECOND 1000000000ull
enum { PART = 4096, PAGE = 2 * PART, SLOTS = 16, PAGES = 8, KEY_BYTES = 12 };

static const kvrail_layout *pages;

/* A page with K and V in regions of their own. */
static const kvrail_layout *k_and_v(void) {
    kvrail_level order[] = {{.kind = KVRAIL_LEVEL_REGION_PLANES}};
    kvrail_field fields[] = {
        {.name = "k", .element = KVRAIL_ELEMENT_U8, .count = PART},
        {.name = "v", .element = KVRAIL_ELEMENT_U8, .count = PART},
    };
    kvrail_plane planes[] = {{.fields = &fields[0], .field_count = 1}, {.fields = &fields[1], .field_count = 1}};
    kvrail_declaration d = {
        .struct_bytes = sizeof d, .name = "node test", .order = order, .order_count = 1, .planes = planes,
        .plane_count = 2, .bytes = PAGE,
    };
    const kvrail_layout *layout = NULL;
    OK(kvrail_layout_declare(&d, &layout));
    return layout;
}

static kvrail_node *start(const char *name, const kvrail_pool *pool, const char *directory) {
    kvrail_keys keys = {.hex = KEY};
    kvrail_node_config config = {
        .struct_bytes = sizeof config, .name = name, .transport = "shm:1", .keys = &keys,
        .tag_secret_hex = SECRET, .directory = directory, .pools = pool, .pool_count = pool != NULL,
        .layouts = &pages, .layout_count = 1,
    };
    kvrail_node *node = NULL;
    OK(kvrail_node_start(&config, &node));
    return node;
}

static char names[PAGES][KEY_BYTES];

static kvrail_page_keys keys_of(size_t first, size_t count) {
    return (kvrail_page_keys){
        .bytes = (const uint8_t *)names[first], .byte_count = count * KEY_BYTES, .count = count,
    };
}

static unsigned char k_bytes[PAGES][PART], v_bytes[PAGES][PART];

static void fill_pages(void) {
    for (int i = 0; i < PAGES; i++) {
        snprintf(names[i], KEY_BYTES, "block %d", i);
        memset(k_bytes[i], 2 * i + 1, PART);
        memset(v_bytes[i], 2 * i + 2, PART);
    }
}

struct memory {
    unsigned char k[PAGES][PART], v[PAGES][PART];
};

static uint32_t register_memory(kvrail_node *node, struct memory *memory) {
    kvrail_destination to[] = {
        {.address = memory->k[0], .bytes = sizeof memory->k},
        {.address = memory->v[0], .bytes = sizeof memory->v},
    };
    uint32_t places = 99, count = 0;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_node_register(node, pages, to, 1, -1, &places, &count));
    OK(kvrail_node_register(node, pages, to, 2, -1, &places, &count));
    CHECK(count == PAGES);
    return places;
}

static int holds(const struct memory *memory, int place, int page) {
    return memcmp(memory->k[place], k_bytes[page], PART) == 0 && memcmp(memory->v[place], v_bytes[page], PART) == 0;
}

#endif
