/* What producer.c and reader.c agree on: the layouts, the content of a page, and a key. */
#ifndef PAGES_H
#define PAGES_H

#include <kvrail.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Everybody who may read has it. A real one comes from a file. */
#define KEY "6b767261696c206578616d706c65206b6579206f662074686520432070616765"

/* Ends the program if a call has failed. */
static inline void must(int32_t status, const char *call) {
    if (status == KVRAIL_OK) return;
    char text[512];
    kvrail_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s (%d): %s\n", call, kvrail_status_name(status), status, text);
    exit(1);
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* "mha": 4 layers, 16 tokens, 2 heads of 64 bf16, K and V in an object each: 2 x 16 KiB a page.
 * "latent": one layer of 64 tokens of 64 bf16: 8 KiB. In Rust:
 *
 *     #[derive(KvLayout)]
 *     #[kv(order(regions(planes), layer, token, head), layers = 4, tokens = 16, heads = 2)]
 *     struct Mha { k: [Bf16; 64], #[kv(plane)] v: [Bf16; 64] }
 */
static inline const kvrail_layout *layout_of(const char *kind) {
    const kvrail_layout *layout;
    if (strcmp(kind, "mha") == 0) {
        kvrail_axis axes[] = {
            {.kind = KVRAIL_AXIS_LAYER, .extent = 4},
            {.kind = KVRAIL_AXIS_TOKEN, .extent = 16},
            {.kind = KVRAIL_AXIS_HEAD, .extent = 2},
        };
        kvrail_level order[] = {
            {.kind = KVRAIL_LEVEL_REGION_PLANES},
            {.kind = KVRAIL_LEVEL_AXIS, .axis = KVRAIL_AXIS_LAYER},
            {.kind = KVRAIL_LEVEL_AXIS, .axis = KVRAIL_AXIS_TOKEN},
            {.kind = KVRAIL_LEVEL_AXIS, .axis = KVRAIL_AXIS_HEAD},
        };
        kvrail_field k = {.name = "k", .element = KVRAIL_ELEMENT_BF16, .count = 64};
        kvrail_field v = {.name = "v", .element = KVRAIL_ELEMENT_BF16, .count = 64};
        kvrail_plane planes[] = {
            {.fields = &k, .field_count = 1},
            {.fields = &v, .field_count = 1},
        };
        kvrail_declaration declaration = {
            .struct_bytes = sizeof declaration,
            .name = "Mha",
            .axes = axes,
            .axis_count = 3,
            .order = order,
            .order_count = 4,
            .planes = planes,
            .plane_count = 2,
        };
        must(kvrail_layout_declare(&declaration, &layout), "kvrail_layout_declare");
        return layout;
    }
    if (strcmp(kind, "latent") == 0) {
        kvrail_axis axis = {.kind = KVRAIL_AXIS_TOKEN, .extent = 64};
        kvrail_level level = {.kind = KVRAIL_LEVEL_AXIS, .axis = KVRAIL_AXIS_TOKEN};
        kvrail_field latent = {.name = "latent", .element = KVRAIL_ELEMENT_BF16, .count = 64};
        kvrail_plane plane = {.fields = &latent, .field_count = 1};
        kvrail_declaration declaration = {
            .struct_bytes = sizeof declaration,
            .name = "Latent",
            .axes = &axis,
            .axis_count = 1,
            .order = &level,
            .order_count = 1,
            .planes = &plane,
            .plane_count = 1,
        };
        must(kvrail_layout_declare(&declaration, &layout), "kvrail_layout_declare");
        return layout;
    }
    return NULL;
}

/* The tag of a page: both sides make it of the page's key, under a secret of the group's. */
static inline kvrail_key_tag page_tag(uint64_t page) {
    static const uint8_t secret[32] = "tags of the example, no peer key";
    kvrail_key_tag tag;
    must(kvrail_tag(secret, (const uint8_t *)&page, sizeof page, &tag), "kvrail_tag");
    return tag;
}

/* Eight bytes of a page: which depend on the page, the object and the place, so that no other
 * page, and no other place, is taken for it. */
static inline uint64_t word_of(uint64_t tag, uint32_t object, size_t at) {
    return (tag ^ object) + at * 0x9e3779b97f4a7c15u;
}

/* Writes the part of a page that one object has. */
static inline void fill_object(unsigned char *to, size_t bytes, uint64_t page, uint32_t object) {
    uint64_t tag = page_tag(page).low;
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        uint64_t word = word_of(tag, object, at);
        memcpy(to + at, &word, 8);
    }
}

/* Whether the bytes are those of the page that has this tag. */
static inline int is_right(const unsigned char *from, size_t bytes, uint64_t tag, uint32_t object) {
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        uint64_t word = word_of(tag, object, at);
        if (memcmp(from + at, &word, 8) != 0) return 0;
    }
    return 1;
}

#endif
