/* Every violation of a contract that can be detected gives its status, and changes nothing. */
#define _GNU_SOURCE
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
enum { PAGE = 4096, SLOTS = 8 };

static const kvrail_layout *pages;
static kvrail_publisher *publisher;
static char address[64];

static void statuses(void) {
    CHECK(strcmp(kvrail_status_name(KVRAIL_OK), "Ok") == 0);
    CHECK(strcmp(kvrail_status_name(KVRAIL_MISS_KEY), "Miss::Key") == 0);
    CHECK(strcmp(kvrail_status_name(KVRAIL_PAGE_NO_LANE), "PageError::NoLane") == 0);
    CHECK(strcmp(kvrail_status_name(KVRAIL_ERROR_DESCRIPTOR), "CapiError::Descriptor") == 0);
    CHECK(strcmp(kvrail_status_name(-7), "unknown") == 0);
    CHECK(strlen(kvrail_status_meaning(KVRAIL_MISS_GENERATION)) > 20);
    CHECK(kvrail_abi_version() == KVRAIL_ABI_VERSION);
    CHECK(strchr(kvrail_version(), '.') != NULL);
    EXPECT(KVRAIL_ERROR_NULL, kvrail_layout_opaque(1, NULL));
    char text[8];
    size_t needed = kvrail_last_error(NULL, 0);
    CHECK(needed == sizeof "layout is null");
    CHECK(kvrail_last_error(text, sizeof text) == needed && strcmp(text, "layout ") == 0);
    kvrail_key_tag tag;
    uint8_t secret[32] = {1};
    EXPECT(KVRAIL_ERROR_NULL, kvrail_tag(NULL, secret, 1, &tag));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_tag(secret, NULL, 1, &tag));
    OK(kvrail_tag(secret, NULL, 0, &tag));
}

static void layouts(void) {
    const kvrail_layout *layout = NULL;
    EXPECT(KVRAIL_ERROR_LAYOUT_NAME, kvrail_layout_named("no_such_layout", &layout));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_layout_named(NULL, &layout));
    EXPECT(KVRAIL_ERROR_TEXT, kvrail_layout_named("\xff", &layout));
    EXPECT(6013, kvrail_layout_opaque(1ull << 32, &layout));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_layout_declare(NULL, &layout));
    kvrail_axis axis = {.kind = 6, .extent = 1};
    kvrail_declaration d = {.struct_bytes = sizeof d, .name = "d", .axes = &axis, .axis_count = 1};
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_layout_declare(&d, &layout));
    axis.kind = KVRAIL_AXIS_TOKEN;
    axis.spread = 4;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_layout_declare(&d, &layout));
    axis.spread = KVRAIL_SPREAD_WHOLE;
    EXPECT(1001, kvrail_layout_declare(&d, &layout)); /* no field */
    d.axis_count = 1u << 20;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_layout_declare(&d, &layout));
    d.axis_count = 1;
    d.axes = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_layout_declare(&d, &layout));
    d.struct_bytes = 4;
    EXPECT(KVRAIL_ERROR_STRUCT_BYTES, kvrail_layout_declare(&d, &layout));
    d.struct_bytes = 5000;
    EXPECT(KVRAIL_ERROR_NEWER_STRUCT, kvrail_layout_declare(&d, &layout));
    kvrail_layout_info info = {.struct_bytes = sizeof info};
    EXPECT(KVRAIL_ERROR_NULL, kvrail_layout_query(NULL, &info));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_layout_query((const kvrail_layout *)&info, &info));
    info.struct_bytes = 0;
    EXPECT(KVRAIL_ERROR_STRUCT_BYTES, kvrail_layout_query(pages, &info));
    char text[4];
    EXPECT(KVRAIL_ERROR_BUFFER, kvrail_layout_text(pages, text, sizeof text));
}

static void start_publisher(void) {
    kvrail_keys keys = {.hex = KEY};
    kvrail_pool pool = {.layout = pages, .slots = SLOTS};
    kvrail_publisher_config config = {
        .struct_bytes = sizeof config, .node = "p", .listen = "127.0.0.1:0", .transport = "shm:1",
        .keys = &keys, .pools = &pool, .pool_count = 1,
    };
    kvrail_publisher *none = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_publisher_start(&config, NULL));
    config.transport = "pigeon:1";
    EXPECT(KVRAIL_ERROR_TRANSPORT, kvrail_publisher_start(&config, &none));
    config.transport = "shm:17";
    EXPECT(KVRAIL_ERROR_TRANSPORT, kvrail_publisher_start(&config, &none));
    config.transport = "shm:1";
    config.permit_any_reader = 2;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_publisher_start(&config, &none));
    config.permit_any_reader = 0;
    config.listen = "nowhere";
    EXPECT(4040, kvrail_publisher_start(&config, &none));
    config.listen = "127.0.0.1:0";
    keys.file = "/nonexistent";
    EXPECT(KVRAIL_ERROR_KEY, kvrail_publisher_start(&config, &none));
    keys.file = keys.hex = NULL;
    EXPECT(KVRAIL_ERROR_KEY, kvrail_publisher_start(&config, &none));
    keys.hex = KEY;
    config.pool_count = 0;
    EXPECT(6062, kvrail_publisher_start(&config, &none));
    config.pool_count = 1;
    pool.slots = 0;
    EXPECT(6060, kvrail_publisher_start(&config, &none));
    pool.slots = SLOTS;
    pool.layout = (const kvrail_layout *)&pool;
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_publisher_start(&config, &none));
    pool.layout = pages;
    CHECK(none == NULL);
    OK(kvrail_publisher_start(&config, &publisher));
    OK(kvrail_publisher_address(publisher, address, sizeof address));
}

static void slots(void) {
    kvrail_key_tag tag = {7, 8};
    kvrail_location location;
    kvrail_slot_bytes bytes;
    uint32_t published = 9;
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_publisher_begin((kvrail_publisher *)&tag, 0, 0, &tag, &bytes));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_publisher_begin(NULL, 0, 0, &tag, &bytes));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_publisher_begin(publisher, 0, 0, NULL, &bytes));
    EXPECT(KVRAIL_ERROR_NO_POOL, kvrail_publisher_begin(publisher, 1, 0, &tag, &bytes));
    EXPECT(6070, kvrail_publisher_begin(publisher, 0, SLOTS, &tag, &bytes)); /* no such slot */
    EXPECT(KVRAIL_ERROR_NOT_BEGUN, kvrail_publisher_publish(publisher, 0, 0, &location));
    EXPECT(KVRAIL_ERROR_NOT_BEGUN, kvrail_publisher_grow(publisher, 0, 0, &location));
    EXPECT(KVRAIL_ERROR_NOT_BEGUN, kvrail_publisher_abandon(publisher, 0, 0));
    OK(kvrail_publisher_begin(publisher, 0, 0, &tag, &bytes));
    CHECK(bytes.bytes == PAGE && bytes.address != NULL);
    int32_t again = kvrail_publisher_begin(publisher, 0, 0, &tag, &bytes);
    CHECK(strcmp(kvrail_status_name(again), "WriteError::BeingWritten") == 0);
    EXPECT(KVRAIL_ERROR_NOT_BEGUN, kvrail_publisher_set_ready(publisher, 0, 0, 1, &location));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_publisher_publish(publisher, 0, 0, NULL));
    memset(bytes.address, 5, PAGE);
    OK(kvrail_publisher_grow(publisher, 0, 0, &location));
    CHECK(location.ready == 0);
    EXPECT(KVRAIL_ERROR_GROWS, kvrail_publisher_grow(publisher, 0, 0, &location));
    OK(kvrail_publisher_set_ready(publisher, 0, 0, 2, &location));
    CHECK(location.ready == 2);
    int32_t fewer = kvrail_publisher_set_ready(publisher, 0, 0, 2, &location);
    CHECK(fewer != KVRAIL_OK && fewer < 8000);
    EXPECT(6101, kvrail_publisher_withdraw(publisher, 0, 1000000)); /* the slot is begun */
    EXPECT(6100, kvrail_publisher_withdraw(publisher, 3, 1000000));
    OK(kvrail_publisher_publish(publisher, 0, 0, &location));
    CHECK(location.ready == KVRAIL_WHOLE_PAGE && location.tag.low == 7 && location.tag.high == 8);
    OK(kvrail_publisher_location(publisher, 0, 0, &location, &published));
    CHECK(published == 1);
    OK(kvrail_publisher_invalidate(publisher, 0, 0));
    OK(kvrail_publisher_location(publisher, 0, 0, &location, &published));
    CHECK(published == 0);

    kvrail_memory *memory = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_memory_host(NULL, 1, &memory));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_memory_host(bytes.address, 0, &memory));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_memory_file(-1, 0, bytes.address, 1, &memory));
    EXPECT(KVRAIL_ERROR_DESCRIPTOR, kvrail_memory_dmabuf(9999, 0, 4096, 4096, &memory));
    static unsigned char own[PAGE * 4];
    OK(kvrail_memory_host(own, sizeof own, &memory));
    kvrail_pool_region region = {.memory = memory, .first = sizeof own};
    kvrail_pool pool = {.layout = pages, .regions = &region, .region_count = 1, .slots = 1};
    uint32_t number;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_publisher_add_pool(publisher, &pool, &number));
    pool.slots = 0;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_publisher_add_pool(publisher, &pool, &number));
    region.first = 0;
    region.memory = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_publisher_add_pool(publisher, &pool, &number));
    region.memory = memory;
    OK(kvrail_publisher_add_pool(publisher, &pool, &number));
    OK(kvrail_memory_release(memory)); /* the publisher keeps its own */
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_memory_release(memory));
    OK(kvrail_publisher_begin(publisher, number, 3, &tag, NULL));
    OK(kvrail_publisher_abandon(publisher, number, 3));
    OK(kvrail_publisher_withdraw(publisher, number, 1000000000));
    EXPECT(KVRAIL_ERROR_NO_POOL, kvrail_publisher_begin(publisher, number, 3, &tag, NULL));
}

static kvrail_reader_config config_of(void) {
    kvrail_reader_config config = {
        .struct_bytes = sizeof config, .transport = "shm:1", .layout = pages, .max_rails = 1,
        .max_peers = 4, .max_batch = 4, .max_batches = 4, .connect_ms = 5000,
    };
    return config;
}

static void start_reader(void) {
    size_t bytes = 0;
    kvrail_reader_config config = config_of();
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_bytes(NULL, &bytes));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_bytes(&config, NULL));
    config.max_batch = 5000;
    EXPECT(KVRAIL_ERROR_MAXIMA, kvrail_reader_bytes(&config, &bytes));
    config.max_batch = 4;
    config.max_rails = 17;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_bytes(&config, &bytes));
    config.max_rails = 1;
    config.lanes = 3;
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_bytes(&config, &bytes));
    config.lanes = 0;
    config.layout = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_bytes(&config, &bytes));
    config.layout = pages;
    OK(kvrail_reader_bytes(&config, &bytes));
    unsigned char *memory = malloc(bytes);
    memset(memory, 0, bytes);
    kvrail_reader *reader = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_init(&config, NULL, bytes, &reader));
    EXPECT(KVRAIL_ERROR_MEMORY, kvrail_reader_init(&config, memory, bytes - 1, &reader));
    config.transport = "shm:2";
    EXPECT(6001, kvrail_reader_init(&config, memory, bytes, &reader)); /* beyond max_rails */
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_poll(NULL));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_reader_poll((kvrail_reader *)(memory + 1)));
    uintptr_t aligned = ((uintptr_t)memory + 255) & ~(uintptr_t)255;
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_reader_poll((kvrail_reader *)aligned));
    free(memory);
}

/* A reader that is connected, and its destination. */
struct connected {
    kvrail_reader *reader;
    uint32_t peer, region;
};

static void reads(struct connected c, const kvrail_location *there) {
    kvrail_read read[8];
    memset(read, 0, sizeof read);
    for (uint32_t i = 0; i < 8; i++) {
        read[i] = (kvrail_read){.peer = c.peer, .region = c.region, .slot = i, .location = *there};
    }
    uint64_t ticket = 0;
    EXPECT(2090, kvrail_reader_read(c.reader, read, 0, NULL, &ticket));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_read(c.reader, NULL, 1, NULL, &ticket));
    kvrail_read_options options = {.struct_bytes = sizeof options, .flags = 2};
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_read(c.reader, read, 1, &options, &ticket));
    options = (kvrail_read_options){.struct_bytes = sizeof options, .priority = 2};
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_read(c.reader, read, 1, &options, &ticket));
    options = (kvrail_read_options){.struct_bytes = 3};
    EXPECT(KVRAIL_ERROR_STRUCT_BYTES, kvrail_reader_read(c.reader, read, 1, &options, &ticket));
    struct { int32_t status; kvrail_read bad; } bad[] = {
        {KVRAIL_ERROR_PEER, {.peer = c.peer + 0x10000, .region = c.region, .location = *there}},
        {KVRAIL_ERROR_PEER, {.peer = 77, .region = c.region, .location = *there}},
        {KVRAIL_ERROR_REGION, {.peer = c.peer, .region = c.region + 1, .location = *there}},
        {KVRAIL_ERROR_SLOT, {.peer = c.peer, .region = c.region, .slot = SLOTS, .location = *there}},
        {KVRAIL_ERROR_SLOT_IN_FLIGHT, {.peer = c.peer, .region = c.region, .slot = 0, .location = *there}},
        {KVRAIL_ERROR_PLAN, {.peer = c.peer, .region = c.region, .slot = 1, .plan = 1, .location = *there}},
        {KVRAIL_ERROR_VALUE, {.peer = c.peer, .region = c.region, .slot = 1, .flags = 4, .location = *there}},
        {KVRAIL_ERROR_POOL, {.peer = c.peer, .region = c.region, .slot = 1, .location = {.pool = 9}}},
        {6041, {.peer = c.peer, .region = c.region, .slot = 1, .location = {.slot = SLOTS}}},
    };
    /* Each fails as the second page of a batch, and then the first page's slot is free again. */
    for (size_t i = 0; i < COUNT(bad); i++) {
        read[1] = bad[i].bad;
        EXPECT(bad[i].status, kvrail_reader_read(c.reader, read, 2, NULL, &ticket));
        char text[256];
        kvrail_last_error(text, sizeof text);
        CHECK(strncmp(text, "read 1: ", 8) == 0);
    }
    read[1] = (kvrail_read){.peer = c.peer, .region = c.region, .slot = 1, .location = *there};
    /* A part lands in slots of bytes only. */
    read[1].part_bytes = 8;
    CHECK(kvrail_reader_read(c.reader, read, 2, NULL, &ticket) != KVRAIL_OK);
    read[1].part_bytes = 0;
    OK(kvrail_reader_read(c.reader, read, 2, NULL, &ticket));
    EXPECT(KVRAIL_ERROR_SLOT_IN_FLIGHT, kvrail_reader_read(c.reader, read, 1, NULL, &ticket));
    EXPECT(KVRAIL_ERROR_REGION_BUSY, kvrail_reader_unregister(c.reader, c.region));
    kvrail_result results[4];
    size_t count = 0, done = 0;
    while (done < 2) {
        OK(kvrail_reader_poll(c.reader));
        OK(kvrail_reader_results(c.reader, results + done, 1, &count)); /* one at a time */
        done += count;
        if (count == 0) OK(kvrail_reader_wait(c.reader, 100000000));
    }
    for (size_t i = 0; i < 2; i++) {
        CHECK(results[i].status == KVRAIL_OK && results[i].slot == i && results[i].index == i);
    }
    EXPECT(2095, kvrail_reader_withdraw(c.reader, ticket));
    EXPECT(2095, kvrail_reader_withdraw_page(c.reader, 1ull << 60, 0));
    EXPECT(2095, kvrail_reader_set_class(c.reader, ticket, KVRAIL_CLASS_BACKGROUND));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_set_class(c.reader, ticket, 7));
    read[0].location.generation ^= 1ull << 40; /* forged */
    OK(kvrail_reader_read(c.reader, read, 1, NULL, NULL));
    for (count = 0; count == 0;) {
        OK(kvrail_reader_poll(c.reader));
        OK(kvrail_reader_results(c.reader, results, 4, &count));
        if (count == 0) OK(kvrail_reader_wait(c.reader, 100000000));
    }
    CHECK(count == 1 && results[0].status == KVRAIL_MISS_GENERATION);
}

static void peers(struct connected c) {
    kvrail_rail_stats stats = {.struct_bytes = sizeof stats};
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_rail_stats(c.reader, 1, &stats));
    OK(kvrail_reader_rail_stats(c.reader, 0, &stats));
    CHECK(stats.bytes >= 2 * PAGE && stats.struct_bytes == sizeof stats);
    kvrail_peer_stats peer = {.struct_bytes = sizeof peer};
    OK(kvrail_reader_peer_stats(c.reader, c.peer, &peer));
    CHECK(peer.pages == 2 && peer.misses == 1 && peer.lanes == 1);
    EXPECT(KVRAIL_ERROR_PEER, kvrail_reader_peer_stats(c.reader, 1234, &peer));
    char name[16];
    OK(kvrail_reader_rail_name(c.reader, 0, name, sizeof name));
    CHECK(strcmp(name, "shm0") == 0);
    kvrail_reader_info info = {.struct_bytes = sizeof info};
    OK(kvrail_reader_query(c.reader, &info));
    CHECK(info.rails == 1 && info.in_flight == 0 && info.max_batch >= 4);
    uint32_t number, plan;
    kvrail_keys keys = {.hex = KEY}, wrong = {.hex = "00" KEY};
    EXPECT(4040, kvrail_reader_connect(c.reader, "nowhere", &keys, NULL, 0, &number));
    CHECK(kvrail_reader_connect(c.reader, address, &wrong, NULL, 0, &number) != KVRAIL_OK);
    CHECK(kvrail_reader_connect(c.reader, address, NULL, NULL, 0, &number) != KVRAIL_OK);
    const kvrail_layout *other;
    OK(kvrail_layout_opaque(PAGE + 1, &other));
    EXPECT(6035, kvrail_reader_connect(c.reader, address, &keys, &other, 1, &number));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_add_plan(c.reader, pages, NULL, 0, NULL, NULL, 0, &plan));
    CHECK(kvrail_reader_add_plan(c.reader, pages, NULL, 0, other, NULL, 0, &plan) != KVRAIL_OK);
    EXPECT(KVRAIL_ERROR_PLAN, kvrail_reader_forget_plan(c.reader, 0));
    EXPECT(KVRAIL_ERROR_PLAN, kvrail_reader_forget_plan(c.reader, 1));
    OK(kvrail_reader_add_plan(c.reader, pages, NULL, 0, pages, NULL, 0, &plan));
    OK(kvrail_reader_forget_plan(c.reader, plan));
    EXPECT(KVRAIL_ERROR_PLAN, kvrail_reader_forget_plan(c.reader, plan));
    kvrail_location locations[SLOTS];
    size_t count;
    EXPECT(KVRAIL_ERROR_POOL, kvrail_reader_published(c.reader, c.peer, 5, 0, 1, 1000000000, locations, &count));
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_published(c.reader, c.peer, 0, 0, 1, 1000000000, NULL, &count));
    kvrail_destination odd = {.address = (unsigned char *)locations, .bytes = 1};
    EXPECT(2161, kvrail_reader_register(c.reader, NULL, &odd, 1, -1, &number, NULL));
    EXPECT(KVRAIL_ERROR_VALUE, kvrail_reader_register(c.reader, NULL, &odd, 1, 300, &number, NULL));
    EXPECT(2164, kvrail_reader_register(c.reader, NULL, NULL, 0, -1, &number, NULL));
    odd.address = NULL;
    EXPECT(KVRAIL_ERROR_NULL, kvrail_reader_register_bytes(c.reader, &odd, 8, -1, &number, NULL));
    EXPECT(KVRAIL_ERROR_REGION, kvrail_reader_unregister(c.reader, 200));
    /* A connect that is begun has its outcome as an event. */
    uint64_t connecting;
    kvrail_event event = {0};
    OK(kvrail_reader_begin_connect(c.reader, address, &keys, NULL, 0, &connecting));
    while (event.kind == KVRAIL_EVENT_NONE) {
        OK(kvrail_reader_poll(c.reader));
        OK(kvrail_reader_next_event(c.reader, &event));
        if (event.kind == KVRAIL_EVENT_NONE) OK(kvrail_reader_wait(c.reader, 100000000));
    }
    CHECK(event.kind == KVRAIL_EVENT_CONNECTED && event.connecting == connecting);
    OK(kvrail_reader_disconnect(c.reader, event.peer));
    EXPECT(KVRAIL_ERROR_PEER, kvrail_reader_disconnect(c.reader, event.peer));
    OK(kvrail_reader_abandon_connect(c.reader, connecting));
}

static atomic_int connecting;
static char silent[64];

/* Connects to an address that never answers, which takes connect_ms. */
static void *connect_long(void *reader) {
    uint32_t peer;
    kvrail_keys keys = {.hex = KEY};
    connecting = 1;
    CHECK(kvrail_reader_connect(reader, silent, &keys, NULL, 0, &peer) != KVRAIL_OK);
    return NULL;
}

/* A call beside another one of the same reader is refused. */
static void overlapping(kvrail_reader *reader) {
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    CHECK(bind(listening, (struct sockaddr *)&at, bytes) == 0 && listen(listening, 8) == 0);
    CHECK(getsockname(listening, (struct sockaddr *)&at, &bytes) == 0);
    snprintf(silent, sizeof silent, "127.0.0.1:%d", ntohs(at.sin_port));
    pthread_t thread;
    if (pthread_create(&thread, NULL, connect_long, reader) != 0) abort();
    while (!connecting) usleep(1000);
    usleep(1000000); /* it is in the call by now, for some seconds */
    EXPECT(KVRAIL_ERROR_IN_USE, kvrail_reader_poll(reader));
    EXPECT(KVRAIL_ERROR_IN_USE, kvrail_reader_close(reader));
    pthread_join(thread, NULL);
    OK(kvrail_reader_poll(reader));
    close(listening);
}

int main(void) {
    OK(kvrail_layout_opaque(PAGE, &pages));
    statuses();
    layouts();
    start_publisher();
    slots();
    start_reader();

    kvrail_key_tag tag = {1, 2};
    kvrail_slot_bytes page;
    kvrail_location location;
    OK(kvrail_publisher_begin(publisher, 0, 2, &tag, &page));
    memset(page.address, 42, PAGE);
    OK(kvrail_publisher_publish(publisher, 0, 2, &location));

    struct connected c;
    kvrail_reader_config config = config_of();
    kvrail_keys keys = {.hex = KEY};
    size_t bytes;
    OK(kvrail_reader_bytes(&config, &bytes));
    unsigned char *memory = malloc(bytes), *destination = malloc(SLOTS * PAGE);
    OK(kvrail_reader_init(&config, memory, bytes, &c.reader));
    kvrail_destination to = {.address = destination, .bytes = SLOTS * PAGE};
    uint32_t count = 0;
    OK(kvrail_reader_register(c.reader, NULL, &to, 1, -1, &c.region, &count));
    CHECK(count == SLOTS);
    OK(kvrail_reader_connect(c.reader, address, &keys, NULL, 0, &c.peer));
    reads(c, &location);
    CHECK(destination[0] == 42 && destination[PAGE - 1] == 42);
    peers(c);
    overlapping(c.reader);
    uint64_t readers;
    OK(kvrail_publisher_readers(publisher, &readers));
    CHECK(readers >= 1);

    /* The peer ends: an event, and then its number is none. */
    kvrail_event event = {0};
    OK(kvrail_publisher_close(publisher));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_publisher_close(publisher));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_publisher_invalidate(publisher, 0, 0));
    for (int i = 0; i < 100 && event.kind != KVRAIL_EVENT_LOST; i++) {
        OK(kvrail_reader_wait(c.reader, 100000000));
        OK(kvrail_reader_poll(c.reader));
        OK(kvrail_reader_next_event(c.reader, &event));
    }
    CHECK(event.kind == KVRAIL_EVENT_LOST && event.peer == c.peer && event.status != KVRAIL_OK);
    kvrail_read read = {.peer = c.peer, .region = c.region, .location = location};
    EXPECT(KVRAIL_ERROR_PEER, kvrail_reader_read(c.reader, &read, 1, NULL, NULL));

    OK(kvrail_reader_unregister(c.reader, c.region));
    EXPECT(KVRAIL_ERROR_REGION, kvrail_reader_unregister(c.reader, c.region));
    OK(kvrail_reader_close(c.reader));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_reader_close(c.reader));
    EXPECT(KVRAIL_ERROR_HANDLE, kvrail_reader_poll(c.reader));
    free(memory);
    free(destination);
    return verdict("misuse");
}
