/* A publisher and a reader of one pool, for the test programs. Pages have four layers of eight
 * tokens of 64 bytes. A program that wants other numbers defines POOL_SLOTS, which is also the most
 * pages of a batch. */
#ifndef BOTH_H
#define BOTH_H

#ifndef POOL_SLOTS
#define POOL_SLOTS 4
#endif

#include "check.h"

#define KEY "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
enum { LAYERS = 4, TOKENS = 8, ROW = 64, PAGE = LAYERS * TOKENS * ROW, SLOTS = POOL_SLOTS };

struct both {
    kvrail_publisher *publisher;
    kvrail_reader *reader;
    uint32_t peer;
    void *memory;
};

/* Four layers of eight tokens of 64 bytes, in this order of the axes. */
static const kvrail_layout *pages_of(uint32_t outer, uint32_t inner) {
    kvrail_axis axes[] = {
        {.kind = KVRAIL_AXIS_LAYER, .extent = LAYERS},
        {.kind = KVRAIL_AXIS_TOKEN, .extent = TOKENS},
    };
    kvrail_level order[] = {{.kind = KVRAIL_LEVEL_AXIS, .axis = outer}, {.kind = KVRAIL_LEVEL_AXIS, .axis = inner}};
    kvrail_field field = {.name = "kv", .element = KVRAIL_ELEMENT_U8, .count = ROW};
    kvrail_plane plane = {.fields = &field, .field_count = 1};
    kvrail_declaration d = {
        .struct_bytes = sizeof d, .name = "test", .axes = axes, .axis_count = 2, .order = order,
        .order_count = 2, .planes = &plane, .plane_count = 1,
    };
    const kvrail_layout *layout = NULL;
    OK(kvrail_layout_declare(&d, &layout));
    return layout;
}

static struct both start(const char *transport, const kvrail_layout *layout) {
    struct both b;
    kvrail_keys keys = {.hex = KEY};
    kvrail_pool pool = {.layout = layout, .slots = SLOTS};
    kvrail_publisher_config config = {
        .struct_bytes = sizeof config, .node = "p", .listen = "127.0.0.1:0", .transport = transport,
        .keys = &keys, .pools = &pool, .pool_count = 1,
    };
    OK(kvrail_publisher_start(&config, &b.publisher));
    char address[64];
    OK(kvrail_publisher_address(b.publisher, address, sizeof address));
    kvrail_reader_config reader = {
        .struct_bytes = sizeof reader, .transport = transport, .layout = layout, .max_peers = 2,
        .max_batch = SLOTS, .max_batches = 2, .node = "r", .lanes = KVRAIL_LANES_AT_CONNECT,
    };
    size_t bytes;
    OK(kvrail_reader_bytes(&reader, &bytes));
    b.memory = malloc(bytes);
    OK(kvrail_reader_init(&reader, b.memory, bytes, &b.reader));
    OK(kvrail_reader_connect(b.reader, address, &keys, NULL, 0, &b.peer));
    return b;
}

static void end(struct both b) {
    OK(kvrail_reader_close(b.reader));
    OK(kvrail_publisher_close(b.publisher));
    free(b.memory);
}

/* Reads one page and returns its status. This and what follows is inline: a program need not use it. */
static inline int32_t fetch(struct both b, const kvrail_read *read) {
    int32_t status = kvrail_reader_read(b.reader, read, 1, NULL, NULL);
    if (status != KVRAIL_OK) return status;
    kvrail_result result;
    for (size_t count = 0; count == 0;) {
        OK(kvrail_reader_poll(b.reader));
        OK(kvrail_reader_results(b.reader, &result, 1, &count));
        if (count == 0) OK(kvrail_reader_wait(b.reader, 100000000));
    }
    return result.status;
}

static inline unsigned char value(uint32_t layer, uint32_t token) { return (unsigned char)(16 * layer + token + 1); }

static inline void write_layer(unsigned char *page, uint32_t layer) {
    for (uint32_t token = 0; token < TOKENS; token++) {
        memset(page + (layer * TOKENS + token) * ROW, value(layer, token), ROW);
    }
}

#endif
