/* kvrail: pulls KV-cache pages out of a peer's memory with one-sided READs, over every rail.
 *
 * Licensed under MIT or Apache-2.0. Made by cbindgen of engine/capi/src/abi: do not edit it.
 * docs/c.md is the chapter that goes with it.
 *
 * Every function that can fail returns a status: KVRAIL_OK, or a number that never changes its
 * meaning (docs/errors.md), of which KVRAIL_PAGE_..., KVRAIL_MISS_... and KVRAIL_ERROR_... are
 * some. kvrail_last_error() has the text of the calling thread's last error. A call that failed
 * has changed nothing, unless its documentation says otherwise.
 *
 * A null pointer, a handle that is closed, a number that an argument cannot have, and a buffer
 * that is too short are answered with an error. What cannot be checked is a precondition: it
 * stands under "Safety". Pointers that are arguments are lent for the time of the call; nothing
 * else uses what they point to meanwhile, and no two of them overlap. "Null" in that list means
 * that a null pointer is answered with KVRAIL_ERROR_NULL.
 *
 * Fields called "reserved", and fields that are not set otherwise, are 0. Set a structure to zeros
 * first, and its struct_bytes to its sizeof.
 */


#ifndef KVRAIL_H
#define KVRAIL_H

#include <stddef.h>
#include <stdint.h>

// The number of this binary interface. It changes when a function or a structure changes so that
// a program that was compiled with another kvrail.h cannot be served any more: compare it with
// kvrail_abi_version(), which is the number of the library that runs. Structures that begin with
// struct_bytes grow at their end without a new number.
#define KVRAIL_ABI_VERSION 1

// The call succeeded, or the page arrived: whole, and still what its location names.
#define KVRAIL_OK 0

// READs of the page failed in a way that another path does not change.
#define KVRAIL_PAGE_FAULT 2051

// The deadline passed before the page had arrived and was validated.
#define KVRAIL_PAGE_DEADLINE 2052

// The peer was removed.
#define KVRAIL_PAGE_PEER_GONE 2053

// The page was not read, since READs of it, or of other pages of its region, have killed lanes.
#define KVRAIL_PAGE_SET_ASIDE 2054

// The caller withdrew the page, or its batch.
#define KVRAIL_PAGE_WITHDRAWN 2055

// The owner has taken the page's pool back.
#define KVRAIL_PAGE_POOL_GONE 2056

// The deadline passed, and no lane to the peer was up.
#define KVRAIL_PAGE_NO_LANE 2057

// A miss: the owner was overwriting the slot.
#define KVRAIL_MISS_OVERWRITING 2060

// A miss: the slot has been published again, so the location is stale or forged.
#define KVRAIL_MISS_GENERATION 2061

// A miss: the slot holds the page of another key.
#define KVRAIL_MISS_KEY 2062

// A miss: the location says that more parts are ready than the owner ever said.
#define KVRAIL_MISS_NOT_READY 2063

// A miss of a node's get: another page of the same group is a miss.
#define KVRAIL_MISS_GROUP 7212

// A pointer that must not be null is null.
#define KVRAIL_ERROR_NULL 8000

// The field struct_bytes of a structure is less than this library knows.
#define KVRAIL_ERROR_STRUCT_BYTES 8001

// A structure of a later version has a field set that this library does not know.
#define KVRAIL_ERROR_NEWER_STRUCT 8002

// A text is not UTF-8.
#define KVRAIL_ERROR_TEXT 8003

// A number is not a value that its argument can have.
#define KVRAIL_ERROR_VALUE 8004

// The handle is closed, or none of this kind.
#define KVRAIL_ERROR_HANDLE 8005

// Another call of the same reader is under way.
#define KVRAIL_ERROR_IN_USE 8006

// A defect of the library: a panic was caught.
#define KVRAIL_ERROR_PANIC 8007

// An earlier call of this reader panicked: it can only be closed.
#define KVRAIL_ERROR_POISONED 8008

// The caller's buffer is too short.
#define KVRAIL_ERROR_BUFFER 8009

// The text names no transport.
#define KVRAIL_ERROR_TRANSPORT 8010

// The transport is not in this build.
#define KVRAIL_ERROR_NOT_BUILT 8011

// The memory for a reader is too small.
#define KVRAIL_ERROR_MEMORY 8012

// A maximum is larger than the library has readers for.
#define KVRAIL_ERROR_MAXIMA 8013

// No key was given, or two ways to give one.
#define KVRAIL_ERROR_KEY 8014

// No layout of the catalogue has this name.
#define KVRAIL_ERROR_LAYOUT_NAME 8015

// The process has declared as many layouts or names as it may.
#define KVRAIL_ERROR_LAYOUT_LIMIT 8016

// A pointer is not aligned for what it points to.
#define KVRAIL_ERROR_ALIGNMENT 8017

// The reader knows no such peer, or it is gone.
#define KVRAIL_ERROR_PEER 8020

// The reader has no such destination region.
#define KVRAIL_ERROR_REGION 8021

// The region has no such slot.
#define KVRAIL_ERROR_SLOT 8022

// The slot is in flight: a READ may be writing into it.
#define KVRAIL_ERROR_SLOT_IN_FLIGHT 8023

// The peer has no such pool that this reader knows.
#define KVRAIL_ERROR_POOL 8024

// The reader has no such plan.
#define KVRAIL_ERROR_PLAN 8025

// As many batches are in flight, or have results that were not taken, as the reader has.
#define KVRAIL_ERROR_BUSY 8026

// More pages were asked for than a batch holds.
#define KVRAIL_ERROR_TOO_MANY_READS 8027

// Slots of the region are in flight, so it cannot be released.
#define KVRAIL_ERROR_REGION_BUSY 8028

// The reader is closed, but its memory and its slots must stay until the process ends.
#define KVRAIL_ERROR_STILL_READING 8029

// No request that was taken has this number, or it is over.
#define KVRAIL_ERROR_TAKING 8030

// The publisher has no such pool.
#define KVRAIL_ERROR_NO_POOL 8040

// The slot has not been begun.
#define KVRAIL_ERROR_NOT_BEGUN 8041

// The page grows already.
#define KVRAIL_ERROR_GROWS 8042

// The system refused a file descriptor.
#define KVRAIL_ERROR_DESCRIPTOR 8043

// The space of keys belongs to another node, or was never made.
#define KVRAIL_ERROR_SPACE 8050

// The registered memory belongs to another node, or was released.
#define KVRAIL_ERROR_PLACES 8051

// The place is not there, or is not free: a get uses it, or hardware may still write into it.
#define KVRAIL_ERROR_PLACE_BUSY 8052

// The memory, or the pool, is for pages of another layout than those of the space.
#define KVRAIL_ERROR_SPACE_LAYOUT 8053

// The node has no pool of its own for pages of the layout.
#define KVRAIL_ERROR_NO_OWN_POOL 8054

// The get is still under way.
#define KVRAIL_ERROR_UNDERWAY 8055

// No get that was begun has this ticket, or its results were taken.
#define KVRAIL_ERROR_TICKET 8056

// The text names no directory.
#define KVRAIL_ERROR_DIRECTORY 8057

// A status of a put: another thread is storing the page. It is not there yet, and will not be if
// that thread gives up.
#define KVRAIL_PUT_UNDERWAY 8058

// kvrail_node_config.cache_ttl_ns: the node remembers nothing.
#define KVRAIL_NO_CACHE UINT64_MAX

// The axis of the transformer layers.
#define KVRAIL_AXIS_LAYER 1

// The axis of the token states.
#define KVRAIL_AXIS_TOKEN 2

// The axis of K (index 0) and V, where both have one shape.
#define KVRAIL_AXIS_PART 3

// The axis of the KV heads.
#define KVRAIL_AXIS_HEAD 4

// The axis of blocks of tokens, where a page has several of an engine's.
#define KVRAIL_AXIS_BLOCK 5

// Add a number from 0 to 255 of your own for any other axis.
#define KVRAIL_AXIS_OTHER 256

// Unsigned byte: 1 byte.
#define KVRAIL_ELEMENT_U8 1

// Signed byte: 1 byte.
#define KVRAIL_ELEMENT_I8 2

// IEEE 754 binary32: 4 bytes.
#define KVRAIL_ELEMENT_F32 3

// IEEE 754 binary16: 2 bytes.
#define KVRAIL_ELEMENT_F16 4

// bfloat16: 2 bytes.
#define KVRAIL_ELEMENT_BF16 5

// OCP 8-bit float E4M3 without infinities: 1 byte.
#define KVRAIL_ELEMENT_E4M3 6

// OCP 8-bit float E5M2: 1 byte.
#define KVRAIL_ELEMENT_E5M2 7

// OCP MX scale E8M0: 1 byte.
#define KVRAIL_ELEMENT_UE8M0 8

// Two OCP 4-bit floats E2M1 in 1 byte.
#define KVRAIL_ELEMENT_FP4X2 9

// One block for each index of the axis, densely one after the other.
#define KVRAIL_LEVEL_AXIS 1

// The same at a distance that is given at run time, by a kvrail_distance.
#define KVRAIL_LEVEL_STRIDED 2

// One region for each index of the axis.
#define KVRAIL_LEVEL_REGIONS 3

// The planes, densely one after the other.
#define KVRAIL_LEVEL_PLANES 4

// The planes at distances that are given at run time.
#define KVRAIL_LEVEL_STRIDED_PLANES 5

// Each plane in a region of its own.
#define KVRAIL_LEVEL_REGION_PLANES 6

// The levels that follow, padded to a multiple of `pad` bytes.
#define KVRAIL_LEVEL_PAD 7

// The page has all of the axis.
#define KVRAIL_SPREAD_WHOLE 0

// The axis is cut into `ranks` equal parts, of which this page has one.
#define KVRAIL_SPREAD_SHARDED 1

// Each of `ranks` ranks has all of the axis.
#define KVRAIL_SPREAD_REPLICATED 2

// The page has the indices from `first` on, of `of` in all.
#define KVRAIL_SPREAD_STAGE 3

// The rank is left open: kvrail_layout_at_rank() gives it.
#define KVRAIL_RANK_OPEN UINT32_MAX

// Bytes from one index of the axis to the next, in the plane.
#define KVRAIL_DISTANCE_STRIDE 1

// Where the plane begins, in bytes from the beginning of its region.
#define KVRAIL_DISTANCE_PLANE 2

// Bytes of each region that the plane has rows in.
#define KVRAIL_DISTANCE_REGION_BYTES 3

// kvrail_location.ready of a page that is written whole.
#define KVRAIL_WHOLE_PAGE UINT32_MAX

// Lanes are made at connect while there is room, and on demand otherwise.
#define KVRAIL_LANES_AUTO 0

// All lanes of a peer are made at connect, and kept.
#define KVRAIL_LANES_AT_CONNECT 1

// Lanes are made when a page of the peer is first read, and given back when they are idle.
#define KVRAIL_LANES_ON_DEMAND 2

// The page is read without validation: nothing proves that its bytes are one page, or which, or
// that none is missing (docs/failure.md). For memory that does not change, and for measuring. Of
// the location only pool and slot count.
#define KVRAIL_READ_UNVALIDATED 1

// Served first: a request waits for these pages.
#define KVRAIL_CLASS_URGENT 0

// Served when no urgent batch waits, and in one turn of sixteen otherwise.
#define KVRAIL_CLASS_BACKGROUND 1

// Each page has its result as soon as it has arrived, and its slot is free then. Otherwise all
// results of a batch come when its last page has one, which costs fewer instructions.
#define KVRAIL_BATCH_EARLY 1

// There is no event.
#define KVRAIL_EVENT_NONE 0

// A connect that was begun has succeeded; `peer` is the peer.
#define KVRAIL_EVENT_CONNECTED 1

// A connect that was begun has failed with `status`.
#define KVRAIL_EVENT_NOT_CONNECTED 2

// The peer offers another pool, `pool`.
#define KVRAIL_EVENT_POOL_CAME 3

// The peer has taken the pool `pool` back.
#define KVRAIL_EVENT_POOL_GONE 4

// The session with the peer has ended, with `status`. Its number names no peer any more.
#define KVRAIL_EVENT_LOST 5

// The peer offers another pool, `pool`, which cannot be read, for the reason `status`: there are
// no places for its regions, for instance. They are free when the peer is connected to anew.
#define KVRAIL_EVENT_POOL_REFUSED 6

// The reader has what it wanted.
#define KVRAIL_HANDOVER_DONE 1

// The reader wants no more of it.
#define KVRAIL_HANDOVER_GIVEN_UP 2

// The producer aborted it.
#define KVRAIL_HANDOVER_ABORTED 3

// No reader took it, or the reader did not renew, for the time of a lease.
#define KVRAIL_HANDOVER_EXPIRED 4

// The reader's session was lost.
#define KVRAIL_HANDOVER_SESSION_LOST 5

// The publisher stopped.
#define KVRAIL_HANDOVER_STOPPED 6

// The client that made the request has gone.
#define KVRAIL_GIVE_UP_CLIENT_GONE 1

// The reader has no room for the pages, or for their list.
#define KVRAIL_GIVE_UP_NO_ROOM 2

// Reading the pages failed.
#define KVRAIL_GIVE_UP_FAILED 3

// There is no event.
#define KVRAIL_TAKING_NONE 0

// The producer knows the request, and keeps its pages while the reader renews.
#define KVRAIL_TAKING_TAKEN 1

// The list has grown by `count` blocks from place `first` on. Some may have parts that are ready
// already, which no other event says.
#define KVRAIL_TAKING_GROWN 2

// Of the `count` blocks from place `first` on, `parts` parts may be read.
#define KVRAIL_TAKING_READY 3

// The list grows no more, and neither do the parts that are ready.
#define KVRAIL_TAKING_COMPLETE 4

// By the reader's clock the lease ran out before it was renewed. The pages may have been
// overwritten: their reads miss then.
#define KVRAIL_TAKING_LEASE_RAN_OUT 5

// The producer has ended the hand-over, for `reason`. The taking is gone.
#define KVRAIL_TAKING_ENDED 6

// The list got longer than the reader allows: the taking was given up, and is gone.
#define KVRAIL_TAKING_TOO_LONG 7

// The producer did not answer in time: the taking was given up, and is gone.
#define KVRAIL_TAKING_UNANSWERED 8

// The producer stopped computing the request.
#define KVRAIL_END_ABORTED 1

// The producer does not compute the request.
#define KVRAIL_END_REJECTED 2

// The producer learned of no such request within the time that the reader let it wait.
#define KVRAIL_END_UNKNOWN 3

// The lease ran out.
#define KVRAIL_END_EXPIRED 4

// Another reader has the request.
#define KVRAIL_END_TAKEN_BY_OTHER 5

// The session waits for as many unknown requests as the producer allows.
#define KVRAIL_END_TOO_MANY 6

// The producer is stopping.
#define KVRAIL_END_STOPPING 7

// A layout of pages: which byte of a page is what. It lives as long as the process, so it is never
// freed, and equal declarations give the same pointer.
typedef struct kvrail_layout kvrail_layout;

// Memory that the caller owns and a publisher publishes: a handle of it.
typedef struct kvrail_memory kvrail_memory;

// A node: pools of pages by key, readers that get pages of other nodes, and a directory that says
// who has which page. Any number of threads share it.
typedef struct kvrail_node kvrail_node;

// Pools of pages that peers read, and the server that tells peers of them. Threads share it.
typedef struct kvrail_publisher kvrail_publisher;

// A reader: an engine with its rails and sessions, in memory of the caller's. One thread at a time
// calls its functions; it may be another one each time.
typedef struct kvrail_reader kvrail_reader;

// A digest of the key of a page: kvrail_tag() makes it.
typedef struct kvrail_key_tag {
    // The lower 64 bits.
    uint64_t low;
    // The upper 64 bits.
    uint64_t high;
} kvrail_key_tag;

// An axis of a page.
typedef struct kvrail_axis {
    // KVRAIL_AXIS_...
    uint32_t kind;
    // KVRAIL_SPREAD_...
    uint32_t spread;
    // How many indices this page has, at least 1.
    uint64_t extent;
    // Of a sharded or replicated axis: how many ranks there are.
    uint32_t ranks;
    // Of a sharded axis: which rank this is, or KVRAIL_RANK_OPEN.
    uint32_t rank;
    // Of a stage: the first index of the whole that this page has.
    uint64_t first;
    // Of a stage: how many indices the whole has.
    uint64_t of;
} kvrail_axis;

// One level of a page's order.
typedef struct kvrail_level {
    // KVRAIL_LEVEL_...
    uint32_t kind;
    // The axis, of the levels that have one.
    uint32_t axis;
    // Of KVRAIL_LEVEL_PAD: to a multiple of how many bytes.
    uint64_t pad;
} kvrail_level;

// A field of a row: elements of one kind, densely.
typedef struct kvrail_field {
    // The field's name, which is unique in the page and a part of the fingerprint.
    const char *name;
    // KVRAIL_ELEMENT_...
    uint32_t element;
    // 0.
    uint32_t reserved;
    // How many elements a row has, at least 1.
    uint64_t count;
} kvrail_field;

// Rows of the same fields.
typedef struct kvrail_plane {
    // The fields of a row, in the order of their bytes.
    const struct kvrail_field *fields;
    // How many fields.
    size_t field_count;
    // The plane's own levels, in place of those that follow the planes in the page's order; null
    // for the page's.
    const struct kvrail_level *order;
    // How many levels `order` has.
    size_t order_count;
} kvrail_plane;

// A distance that the declaration leaves to run time.
typedef struct kvrail_distance {
    // KVRAIL_DISTANCE_...
    uint32_t kind;
    // The number of the plane, from 0.
    uint32_t plane;
    // Of KVRAIL_DISTANCE_STRIDE: the axis.
    uint32_t axis;
    // 0.
    uint32_t reserved;
    // The distance.
    uint64_t bytes;
} kvrail_distance;

// A page as its author declares it, from the outside in: `order` lists the levels, outermost
// first, and innermost is a row, the fields of a plane one after the other. It is the model of
// docs/layouts.md; a struct with `#[derive(KvLayout)]` and a declaration here with the same
// content have the same fingerprint.
typedef struct kvrail_declaration {
    // sizeof(kvrail_declaration).
    uint32_t struct_bytes;
    // The author's version of the meaning of the bytes.
    uint32_t version;
    // What messages call it, 1 to 64 bytes. It is no part of the fingerprint.
    const char *name;
    // The axes, in any order, each kind once.
    const struct kvrail_axis *axes;
    // How many axes.
    size_t axis_count;
    // The levels, outermost first.
    const struct kvrail_level *order;
    // How many levels.
    size_t order_count;
    // The planes; a page that does not split into planes has one.
    const struct kvrail_plane *planes;
    // How many planes.
    size_t plane_count;
    // How many tokens one index of the token axis stands for; 0 for 1.
    uint64_t tokens_per_state;
    // The address of each region is a multiple of this; 0 for 1.
    uint64_t align;
    // The bytes of a page, to be checked; 0 to check nothing.
    uint64_t bytes;
    // The distances that the order leaves to run time.
    const struct kvrail_distance *distances;
    // How many distances.
    size_t distance_count;
    // A tag for a permutation of the bytes within the page; 0 for none.
    uint32_t swizzle;
    // 0.
    uint32_t reserved;
} kvrail_declaration;

// What can be asked about a layout. The call fills it.
typedef struct kvrail_layout_info {
    // sizeof(kvrail_layout_info), set by the caller.
    uint32_t struct_bytes;
    // How many regions a page has, at least 1.
    uint32_t regions;
    // Bytes of a page in all of its regions.
    uint64_t page_bytes;
    // Tokens of a page; 0 if the layout does not say.
    uint64_t tokens;
    // The fingerprint that two peers compare. While a rank or a distance is open, that of the
    // declaration.
    uint8_t fingerprint[16];
    // The fingerprint that pages of all ranks have in common.
    uint8_t fingerprint_of_any_rank[16];
    // 1 if everything is known that two peers compare, else 0: then a rank is open.
    uint32_t complete;
    // 1 if the layout is made up: no inference engine has such a page.
    uint32_t synthetic;
} kvrail_layout_info;

// The key that all peers of a group share. A null pointer to it means no key, with which only
// addresses of loopback can be listened on. Exactly one of `hex` and `file` is not null.
typedef struct kvrail_keys {
    // 64 hexadecimal digits.
    const char *hex;
    // A file with 32 bytes or 64 digits, to which other users have no access.
    const char *file;
    // The other key during a rotation, as digits, or null.
    const char *other_hex;
    // The other key during a rotation, as a file, or null.
    const char *other_file;
} kvrail_keys;

// Where the pages of one region of a pool are, in memory of the caller's: one page a slot, at
// equal distances.
typedef struct kvrail_pool_region {
    // The memory.
    const struct kvrail_memory *memory;
    // The first byte of the memory that counts.
    uint64_t first;
    // How many bytes count; 0 for all up to the end.
    uint64_t bytes;
    // Bytes from one slot to the next; 0 for those of a page.
    uint64_t stride;
    // Where in each stride the page begins.
    uint64_t offset;
} kvrail_pool_region;

// A pool: slots for pages of one layout, in memory of the publisher's own or of the caller's.
typedef struct kvrail_pool {
    // The layout of the pages.
    const struct kvrail_layout *layout;
    // The regions of the layout in the caller's memory, in the layout's order; null for memory of
    // the publisher's own.
    const struct kvrail_pool_region *regions;
    // How many regions.
    size_t region_count;
    // How many slots, in memory of the publisher's own; 0 where `regions` says it.
    uint32_t slots;
    // 0.
    uint32_t reserved;
} kvrail_pool;

// What a publisher is started with. Zeros are the defaults of all fields that may be left out.
typedef struct kvrail_publisher_config {
    // sizeof(kvrail_publisher_config).
    uint32_t struct_bytes;
    // Over shared memory: 1 lets every process of the same user read the caller's memory, where
    // the Yama security module forbids it to all but ancestors of this process. Any process of the
    // user can then read all memory of this one.
    uint32_t permit_any_reader;
    // The producer's name, 1 to 64 bytes.
    const char *node;
    // Where readers connect: "127.0.0.1:0" for any free port, "[::]:7700", "host:7700".
    const char *listen;
    // The rails: "shm:2", "tcp:192.0.2.1:1" (functional only), "verbs:auto", "verbs:mlx5_0".
    const char *transport;
    // The key, or null for none.
    const struct kvrail_keys *keys;
    // The first pools, numbered from 0, at least one.
    const struct kvrail_pool *pools;
    // How many pools.
    size_t pool_count;
    // The most bytes of one registration of memory; 0 for what the rails can do.
    uint64_t piece_bytes;
    // How many registrations are made at the same time; 0 for one for each rail.
    uint32_t registrations;
    // 0.
    uint32_t reserved;
} kvrail_publisher_config;

// The bytes of a slot in a pool of the publisher's own.
typedef struct kvrail_slot_bytes {
    // The page, all regions of its layout one behind the other; null in a pool of the caller's
    // memory.
    uint8_t *address;
    // How many bytes.
    uint64_t bytes;
} kvrail_slot_bytes;

// Where a page is, and in which publication: plain data, which travels however the application
// likes. It is a hint: the reader checks it, so a stale or forged one is a miss. Only `ready` must
// be true: it comes from the owner, or from kvrail_reader_published().
typedef struct kvrail_location {
    // The pool's number at its publisher.
    uint32_t pool;
    // The slot within the pool.
    uint32_t slot;
    // The publication.
    uint64_t generation;
    // The digest of the page's key.
    struct kvrail_key_tag tag;
    // How many parts are ready; KVRAIL_WHOLE_PAGE if all are.
    uint32_t ready;
    // 0.
    uint32_t reserved;
} kvrail_location;

// What a reader is made for. Zeros are the defaults of all fields that may be left out. The
// maxima decide how much memory it takes.
typedef struct kvrail_reader_config {
    // sizeof(kvrail_reader_config).
    uint32_t struct_bytes;
    // The most rails, 16 at most; 0 for 8.
    uint32_t max_rails;
    // The rails: "shm:2", "tcp:1" (functional only), "verbs:auto", "verbs:mlx5_0,mlx5_1:2".
    const char *transport;
    // The reader's name, for logs and errors of its peers; null for one with the process's number.
    const char *node;
    // The layout of the pages that it reads, unless kvrail_reader_connect() names others.
    const struct kvrail_layout *layout;
    // The most peers at a time; 0 for 64.
    uint32_t max_peers;
    // The most pages of one call of kvrail_reader_read(); 0 for 64.
    uint32_t max_batch;
    // The most batches in flight or with results that were not taken; 0 for 16.
    uint32_t max_batches;
    // The most lanes to all peers together; 0 for `lanes_per_rail` for each rail of each peer.
    uint32_t max_lanes;
    // The most regions of all peers' pools together, a publication table counting as one; 0 for
    // two pools of `layout` for each peer.
    uint32_t max_regions;
    // Lanes from each rail to each peer; 0 for 1. A NIC wants 2 or more.
    uint32_t lanes_per_rail;
    // KVRAIL_LANES_...
    uint32_t lanes;
    // The most lanes over each rail at a time; 0 for as many as there is room for.
    uint32_t lanes_budget;
    // Milliseconds without a READ after which lanes on demand are given back; 0 for a minute.
    uint32_t lane_idle_ms;
    // Milliseconds that connecting to a peer may take; 0 for 10,000.
    uint32_t connect_ms;
    // A page longer than this travels as several READs; 0 for what suits the rails.
    uint32_t chunk_bytes;
    // The most READs outstanding on a rail; 0 for what suits the rails.
    uint32_t rail_wrs;
    // The most bytes outstanding on a rail; 0 for what suits the rails.
    uint64_t rail_bytes;
    // Nanoseconds after which a batch fails whose options do not say it; 0 for 10 seconds.
    uint64_t timeout_ns;
} kvrail_reader_config;

// What a reader is and does.
typedef struct kvrail_reader_info {
    // sizeof(kvrail_reader_info), set by the caller.
    uint32_t struct_bytes;
    // How many rails it drives.
    uint32_t rails;
    // Batches in flight.
    uint32_t in_flight;
    // Batches that there are.
    uint32_t max_batches;
    // Pages that a batch holds.
    uint32_t max_batch;
    // A page longer than this travels as several READs.
    uint32_t chunk_bytes;
} kvrail_reader_info;

// Memory that pages land in: one region of the slots of a layout.
typedef struct kvrail_destination {
    // Where slot 0 begins.
    uint8_t *address;
    // Bytes of the memory.
    uint64_t bytes;
    // Bytes from one slot to the next; 0 for those of a page.
    uint64_t stride;
} kvrail_destination;

// A range of an axis, for kvrail_reader_add_plan().
typedef struct kvrail_range {
    // KVRAIL_AXIS_...
    uint32_t axis;
    // 0.
    uint32_t reserved;
    // The first index.
    uint64_t start;
    // How many indices.
    uint64_t len;
} kvrail_range;

// Counters of a rail, since the reader was started.
typedef struct kvrail_rail_stats {
    // sizeof(kvrail_rail_stats), set by the caller.
    uint32_t struct_bytes;
    // 0.
    uint32_t reserved;
    // READs posted.
    uint64_t posted;
    // Doorbells.
    uint64_t commits;
    // Completions of any status.
    uint64_t completions;
    // Bytes that arrived.
    uint64_t bytes;
    // READs that arrived.
    uint64_t chunks;
    // Completions whose status says that the page is at fault.
    uint64_t page_faults;
    // Completions whose status says that the path is at fault.
    uint64_t path_faults;
    // Completions of flushed READs.
    uint64_t flushed;
    // Completions of an earlier life of a lane.
    uint64_t stale;
    // READs posted again here after their lane had failed.
    uint64_t reposted;
    // Lanes that failed.
    uint64_t lanes_failed;
    // Of these, lanes that completed nothing for too long.
    uint64_t lanes_stalled;
} kvrail_rail_stats;

// What a peer did, or the outcome of a connect.
typedef struct kvrail_event {
    // KVRAIL_EVENT_...
    uint32_t kind;
    // The peer.
    uint32_t peer;
    // The number that kvrail_reader_begin_connect() gave, of an outcome.
    uint64_t connecting;
    // The pool, of KVRAIL_EVENT_POOL_CAME, _POOL_GONE and _POOL_REFUSED.
    uint32_t pool;
    // Why, of KVRAIL_EVENT_NOT_CONNECTED, _LOST and _POOL_REFUSED; kvrail_last_error() has the
    // text.
    int32_t status;
} kvrail_event;

// A pool of a peer.
typedef struct kvrail_peer_pool {
    // Its number.
    uint32_t pool;
    // 0.
    uint32_t reserved;
    // How many slots it has.
    uint64_t slots;
    // Bytes of its pages.
    uint64_t page_bytes;
    // The fingerprint of its layout.
    uint8_t fingerprint[16];
} kvrail_peer_pool;

// Counters of a peer, since it was connected.
typedef struct kvrail_peer_stats {
    // sizeof(kvrail_peer_stats), set by the caller.
    uint32_t struct_bytes;
    // How many lanes lead to it.
    uint32_t lanes;
    // Pages that arrived.
    uint64_t pages;
    // Bytes that arrived.
    uint64_t bytes;
    // Pages that were misses.
    uint64_t misses;
    // Pages that failed by an error of their memory.
    uint64_t faults;
    // Pages whose deadline passed.
    uint64_t late;
    // Pages that were withdrawn.
    uint64_t withdrawn;
    // How often the peer lost its last lane of a class.
    uint64_t detours;
} kvrail_peer_stats;

// One page that is to be read.
typedef struct kvrail_read {
    // The peer.
    uint32_t peer;
    // The region of the slot, as kvrail_reader_register() gave it.
    uint32_t region;
    // The slot that the page lands in.
    uint32_t slot;
    // The plan by which it lands there, as kvrail_reader_add_plan() gave it; 0 for none.
    uint32_t plan;
    // The page.
    struct kvrail_location location;
    // Of a page that grows: only parts below this number are read, by a plan or as a part; 0 if
    // the whole page is needed.
    uint32_t needs;
    // KVRAIL_READ_..., together by `|`.
    uint32_t flags;
    // The first byte of a part of the page, which lands in a slot without a layout.
    uint32_t part_offset;
    // Bytes of the part; 0 for the whole page.
    uint32_t part_bytes;
} kvrail_read;

// How a batch is read. A null pointer to it means zeros.
typedef struct kvrail_read_options {
    // sizeof(kvrail_read_options).
    uint32_t struct_bytes;
    // KVRAIL_CLASS_...
    uint32_t priority;
    // KVRAIL_BATCH_..., together by `|`.
    uint32_t flags;
    // 0.
    uint32_t reserved;
    // Nanoseconds from now after which pages that have not arrived fail; 0 for the reader's.
    uint64_t timeout_ns;
    // A number of the caller's own, which the results give back.
    uint64_t tag;
} kvrail_read_options;

// Pages of one peer that are to be read into consecutive slots.
typedef struct kvrail_read_range {
    // The peer.
    uint32_t peer;
    // The region of the slots, as kvrail_reader_register() gave it.
    uint32_t region;
    // The slot that the first page lands in. The next page lands in the next slot, and so on.
    uint32_t first_slot;
    // KVRAIL_READ_..., together by `|`.
    uint32_t flags;
    // The pages, whole ones, of any pools of the peer.
    const struct kvrail_location *locations;
    // How many pages.
    size_t count;
} kvrail_read_range;

// What has become of one page.
typedef struct kvrail_result {
    // The batch, as kvrail_reader_read() named it.
    uint64_t ticket;
    // The caller's number of the batch.
    uint64_t tag;
    // The position of the page in the batch, from 0.
    uint32_t index;
    // KVRAIL_OK if the page arrived, KVRAIL_PAGE_... or KVRAIL_MISS_... if not. Then the bytes of
    // the slot are unspecified.
    int32_t status;
    // The region of its slot, which is the caller's again.
    uint32_t region;
    // The slot.
    uint32_t slot;
} kvrail_result;

// A batch that is done.
typedef struct kvrail_batch_result {
    // The batch, as kvrail_reader_read() or kvrail_reader_read_ranges() named it.
    uint64_t ticket;
    // The caller's number of the batch.
    uint64_t tag;
    // How many pages it has; 0 if no batch is done.
    uint32_t pages;
    // How many of them did not arrive.
    uint32_t failed;
} kvrail_batch_result;

// A request, as the engines on both sides call it: a number, or a UUID.
typedef struct kvrail_request_id {
    // The lower 64 bits.
    uint64_t low;
    // The upper 64 bits.
    uint64_t high;
} kvrail_request_id;

// A hand-over that has ended.
typedef struct kvrail_ended_handover {
    // The hand-over, as kvrail_handover_open() gave it; 0 if none has ended.
    uint64_t handover;
    // Its request, which may be opened anew.
    struct kvrail_request_id request;
    // KVRAIL_HANDOVER_...
    uint32_t outcome;
    // Why the reader gave it up, of KVRAIL_HANDOVER_GIVEN_UP: KVRAIL_GIVE_UP_..., or another
    // number below 65536 of a later version.
    uint32_t reason;
    // How many blocks its list has.
    size_t blocks;
} kvrail_ended_handover;

// What has happened to a request that a reader has taken.
typedef struct kvrail_taking_event {
    // The request, as kvrail_reader_take() gave it.
    uint64_t taking;
    // KVRAIL_TAKING_...
    uint32_t kind;
    // The place in the list of the first block, of KVRAIL_TAKING_GROWN and KVRAIL_TAKING_READY.
    uint32_t first;
    // How many blocks, of the same.
    uint32_t count;
    // How many parts of each may be read, of KVRAIL_TAKING_READY; KVRAIL_WHOLE_PAGE for all.
    uint32_t parts;
    // Why, of KVRAIL_TAKING_ENDED: KVRAIL_END_..., or another number below 65536 of a later
    // version.
    uint32_t reason;
    // 0.
    uint32_t reserved;
} kvrail_taking_event;

// What a node is started with. Zeros are the defaults of all fields that may be left out.
typedef struct kvrail_node_config {
    // sizeof(kvrail_node_config).
    uint32_t struct_bytes;
    // As in kvrail_publisher_config.
    uint32_t permit_any_reader;
    // The node's name, 1 to 64 bytes.
    const char *name;
    // Where other nodes connect: "192.0.2.1:7700"; null for any free port of loopback.
    const char *listen;
    // The address that other nodes are told; null for that of `listen`.
    const char *advertise;
    // The zone that the node is in, or null: owners of pages in the same zone are read from first.
    const char *zone;
    // The rails: "shm:2", "tcp:192.0.2.1:1" (functional only), "verbs:auto".
    const char *transport;
    // The key that all nodes of the group share, or null for none.
    const struct kvrail_keys *keys;
    // The secret that keys of pages are hashed under, as 64 hexadecimal digits: the same on all
    // nodes of the group, and another one than their key. Exactly one of this and
    // `tag_secret_file` is not null.
    const char *tag_secret_hex;
    // The same secret as a file, to which other users have no access.
    const char *tag_secret_file;
    // Who knows which node has which page: "none" (this node reads its own pools only), "embedded"
    // (this node keeps the directory in its memory), "embedded:192.0.2.1:7700,192.0.2.2:7700" (the
    // nodes that may keep it, the same list on all nodes), or, in a library with the feature
    // `redis`, "redis://192.0.2.9". Null for "none".
    const char *directory;
    // Its pools, numbered from 0. A node without pools reads the pages of others.
    const struct kvrail_pool *pools;
    // How many pools.
    size_t pool_count;
    // Further layouts that the node reads, beside those of its pools.
    const struct kvrail_layout *const *layouts;
    // How many of these.
    size_t layout_count;
    // How many readers, each with rails and a thread of its own, 64 at most; 0 for 1.
    uint32_t readers;
    // With how many pages a batch of READs is full enough to go, 8 to 128; 0 for 32.
    uint32_t batch_pages;
    // For how many pages the node remembers who has them; 0 for 65,536.
    uint64_t cache_records;
    // For how many nanoseconds it remembers that; 0 for five seconds. KVRAIL_NO_CACHE for no
    // memory at all: each get asks the directory.
    uint64_t cache_ttl_ns;
    // For how many nanoseconds a reader's thread without work polls before it sleeps; 0 for
    // 10,000.
    uint64_t spin_ns;
} kvrail_node_config;

// A node's numbers since its start. The call fills it.
typedef struct kvrail_node_stats {
    // sizeof(kvrail_node_stats), set by the caller.
    uint32_t struct_bytes;
    // Readers of other nodes that are connected to it.
    uint32_t connected_readers;
    // Calls of get, and gets that were begun.
    uint64_t gets;
    // Pages that its own pools had.
    uint64_t hits_own_pool;
    // Pages whose owner the node remembered.
    uint64_t hits_cache;
    // Pages whose owner the directory named.
    uint64_t hits_directory;
    // Keys that were misses.
    uint64_t misses;
    // The same by reason: [i] counts status 7200 + i.
    uint64_t misses_by_reason[16];
    // Look-ups in the directory, each for a batch of keys.
    uint64_t look_ups;
    // Keys that were looked up.
    uint64_t keys_looked_up;
    // Places that hardware still might write into when their deadline had passed.
    uint64_t late_places;
    // Pages that wait for its readers, or are being read.
    uint64_t reading;
    // Of all pools of its own memory: slots.
    uint64_t slots;
    // Slots with pages.
    uint64_t pages;
    // Pages that were stored.
    uint64_t puts;
    // Bytes of these.
    uint64_t put_bytes;
    // Puts of a key whose page was there.
    uint64_t puts_present;
    // Puts that found no slot.
    uint64_t puts_refused;
    // Pages that made room for others.
    uint64_t evictions;
    // Pages that were removed.
    uint64_t removed;
    // Pages in pools of an engine's memory.
    uint64_t engine_pages;
} kvrail_node_stats;

// Keys of pages: any bytes, 1 to 256 for each, one key behind the other.
typedef struct kvrail_page_keys {
    // All keys, one behind the other.
    const uint8_t *bytes;
    // How many bytes they have together.
    size_t byte_count;
    // How many bytes each key has; null if all have the same length.
    const uint32_t *lengths;
    // How many keys.
    size_t count;
} kvrail_page_keys;

// What became of the keys of a put.
typedef struct kvrail_put_counts {
    // Pages that were stored.
    size_t stored;
    // Pages that were there already.
    size_t present;
    // How many keys from the first on have pages without a gap, stored or there already.
    size_t leading;
} kvrail_put_counts;

// What became of the keys of a get.
typedef struct kvrail_get_counts {
    // Pages that are in their places.
    size_t hits;
    // How many keys from the first on are hits without a gap.
    size_t leading_hits;
    // Places that hardware may still write into: wait for them by kvrail_node_settle() before
    // anything else is put there.
    size_t unsettled;
} kvrail_get_counts;

// Where the page of a key comes from and goes to, in a get of groups.
typedef struct kvrail_group_page {
    // The space of its key: kvrail_node_space().
    uint32_t space;
    // The registered memory that it lands in, of the space's layout: kvrail_node_register().
    uint32_t places;
    // Its place there.
    uint32_t index;
    // 1: it belongs to the group of the page before it. 0: it begins a group, as the first does.
    uint32_t joined;
} kvrail_group_page;

// A get that was begun and has ended.
typedef struct kvrail_ended_get {
    // Its ticket.
    uint64_t ticket;
    // The caller's number for it.
    uint64_t tag;
} kvrail_ended_get;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, "0.1.0", for messages. The text is never freed.
const char *kvrail_version(void);

// The number of the library's binary interface: KVRAIL_ABI_VERSION of the header that it was built
// with.
uint32_t kvrail_abi_version(void);

// The name of a status, as docs/errors.md lists it: "Miss::Overwriting" for 2060, "Ok" for 0, and
// "unknown" for a number that no error has. The text is never freed.
const char *kvrail_status_name(int32_t status);

// What a status means in general, and what to do about it. The text is never freed.
// kvrail_last_error() has the text with the names and numbers of one error.
const char *kvrail_status_meaning(int32_t status);

// Writes the text of the calling thread's last error: what failed, with its numbers, and what to
// do. A text that does not fit is cut. Returns how many bytes the whole text needs with its final
// zero; 1 if there was no error. A call that succeeds leaves the text of an earlier error.
//
// # Safety
//
// `buffer` is null, or points to `bytes` bytes that can be written.
size_t kvrail_last_error(char *buffer, size_t bytes);

// The tag under which the page of a key is published and looked for: the first 128 bits of an
// HMAC-SHA-256 of `key` under the group's secret. The secret is not the key of the sessions, and
// must not hold the same bytes.
//
// # Safety
//
// `secret` is null, or points to 32 bytes; `key` is null, or points to `key_bytes` bytes; `tag` is
// null, or points to a place for the result.
int32_t kvrail_tag(const uint8_t *secret,
                   const uint8_t *key,
                   size_t key_bytes,
                   struct kvrail_key_tag *tag);

// Declares a layout. The same declaration again gives the same pointer. A process keeps up to
// 1,024 layouts, and 4,096 names of fields and layouts.
//
// # Safety
//
// `declaration` is null, or points to a declaration whose pointers are null or point to as many
// values as its counts say; names end with a zero. `layout` is null, or points to a place for the
// result.
int32_t kvrail_layout_declare(const struct kvrail_declaration *declaration,
                              const struct kvrail_layout **layout);

// A layout of the catalogue, which docs/layouts.md lists, by its name: "vllm_fp8_ds_mla".
//
// # Safety
//
// `name` is null, or a text that ends with a zero. `layout` is null, or points to a place for the
// result.
int32_t kvrail_layout_named(const char *name, const struct kvrail_layout **layout);

// Pages of `bytes` bytes without structure, 1 to 4,294,967,295. No engine has such a page.
//
// # Safety
//
// `layout` is null, or points to a place for the result.
int32_t kvrail_layout_opaque(uint64_t bytes, const struct kvrail_layout **layout);

// The layout as rank `rank` along the sharded axis `axis` holds it.
//
// # Safety
//
// `at_rank` is null, or points to a place for the result. Every pointer `layout` is safe: others
// than those of this library are refused without being followed.
int32_t kvrail_layout_at_rank(const struct kvrail_layout *layout,
                              uint32_t axis,
                              uint32_t rank,
                              const struct kvrail_layout **at_rank);

// What there is to know about a layout.
//
// # Safety
//
// `info` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
// can be written.
int32_t kvrail_layout_query(const struct kvrail_layout *layout, struct kvrail_layout_info *info);

// Bytes of a page in region `region` of its layout, counted from 0.
//
// # Safety
//
// `bytes` is null, or points to a place for the result.
int32_t kvrail_layout_region_bytes(const struct kvrail_layout *layout,
                                   uint32_t region,
                                   uint64_t *bytes);

// Where the elements of a field of one row are. `indices` has one index for each axis that the
// layout has, in the order layer, token, part, head, block, others, whatever their order in
// memory.
//
// # Safety
//
// `field` is null, or a text that ends with a zero; `indices` is null, or points to `count`
// numbers; `region` and `offset` are null, or point to places for results.
int32_t kvrail_layout_offset(const struct kvrail_layout *layout,
                             const char *field,
                             const uint64_t *indices,
                             size_t count,
                             uint32_t *region,
                             uint64_t *offset);

// The name of a layout, as messages have it, with its ranks where it has some.
//
// # Safety
//
// `buffer` is null, or points to `bytes` bytes that can be written.
int32_t kvrail_layout_text(const struct kvrail_layout *layout, char *buffer, size_t bytes);

// A handle of host memory of the caller's. Over shared memory, readers of this host read it by
// process_vm_readv(2). Give one handle for all pools that have pages in the memory.
//
// # Safety
//
// From the call that publishes the memory until kvrail_publisher_withdraw() has succeeded for
// every pool in it, or the publisher is closed: the memory stays mapped, and the bytes of a slot
// are written only between kvrail_publisher_begin() and kvrail_publisher_publish() or
// kvrail_publisher_abandon() of this slot; of a page that grows only bytes that are not ready yet.
// If that is broken, a reader can take a mixture of two pages for a page.
// `memory` is null, or points to a place for the result.
int32_t kvrail_memory_host(uint8_t *address, uint64_t bytes, struct kvrail_memory **memory);

// A handle of memory of the caller's that a file holds (a memfd), which is mapped at `address`.
// Its first byte is the file's byte `offset`. The descriptor is duplicated. Readers of this host
// map the file, which is faster than reading by the address.
//
// # Safety
//
// As for kvrail_memory_host(), and the file holds the memory. `fd` stays open during the call.
int32_t kvrail_memory_file(int32_t fd,
                           uint64_t offset,
                           uint8_t *address,
                           uint64_t bytes,
                           struct kvrail_memory **memory);

// A handle of a device's memory, which a dmabuf holds from its byte `offset` on. Peers name the
// bytes by the addresses from `address` on, which has the same place within a page of the host as
// `offset`. The descriptor is duplicated. For RDMA rails.
//
// # Safety
//
// As for kvrail_memory_host(), for the bytes in the dmabuf. `fd` stays open during the call.
int32_t kvrail_memory_dmabuf(int32_t fd,
                             uint64_t offset,
                             uint64_t address,
                             uint64_t bytes,
                             struct kvrail_memory **memory);

// Gives a handle of memory back. Publishers that have pools in the memory keep it published.
int32_t kvrail_memory_release(struct kvrail_memory *memory);

// Starts a publisher: registers its pools, and serves readers that have its key and want one of
// its layouts. Its threads run until kvrail_publisher_close().
//
// # Safety
//
// `config` is null, or points to a configuration whose pointers are null or point to what their
// fields say; texts end with a zero. `publisher` is null, or points to a place for the result.
int32_t kvrail_publisher_start(const struct kvrail_publisher_config *config,
                               struct kvrail_publisher **publisher);

// Makes every page a miss, ends all sessions, and releases the memory. Waits for calls of this
// publisher that are under way in other threads. When it has returned KVRAIL_OK, nothing reads the
// caller's memory any more. A child of a fork has a copy of its parent's publisher, which this
// forgets: the publisher goes on in the parent.
int32_t kvrail_publisher_close(struct kvrail_publisher *publisher);

// Offers another pool, to the readers of all sessions too.
//
// # Safety
//
// `pool` is null, or points to a pool whose pointers are null or point to what their fields say.
// `number` is null, or points to a place for the pool's number.
int32_t kvrail_publisher_add_pool(struct kvrail_publisher *publisher,
                                  const struct kvrail_pool *pool,
                                  uint32_t *number);

// Takes a pool back: every page of it is a miss, readers are told, and its memory is released.
// Waits up to `timeout_ns` for slots that have been begun. When it has returned KVRAIL_OK, nothing
// reads the pool's memory any more.
int32_t kvrail_publisher_withdraw(struct kvrail_publisher *publisher,
                                  uint32_t pool,
                                  uint64_t timeout_ns);

// The address that readers connect to, with the port that the system chose for port 0.
//
// # Safety
//
// `buffer` is null, or points to `bytes` bytes that can be written.
int32_t kvrail_publisher_address(struct kvrail_publisher *publisher, char *buffer, size_t bytes);

// How many readers are connected.
//
// # Safety
//
// `readers` is null, or points to a place for the result.
int32_t kvrail_publisher_readers(struct kvrail_publisher *publisher, uint64_t *readers);

// Takes a slot to write a page into it, which is published under `tag`. From now on every reader
// misses the slot's earlier page, so call it before the first byte is written, and before a kernel
// that writes one is launched. It ends with kvrail_publisher_publish() or
// kvrail_publisher_abandon(), by any thread.
//
// # Safety
//
// `tag` is null, or points to a tag. `bytes` is null, or points to a place for the bytes of the
// slot, which are written no more once the slot is published or abandoned.
int32_t kvrail_publisher_begin(struct kvrail_publisher *publisher,
                               uint32_t pool,
                               uint32_t slot,
                               const struct kvrail_key_tag *tag,
                               struct kvrail_slot_bytes *bytes);

// Publishes the page in a slot that was begun while it is still written: no part of it is ready
// yet, and kvrail_publisher_set_ready() makes parts ready. What a part is, is agreed on with the
// readers.
//
// # Safety
//
// `location` is null, or points to a place for the page's location.
int32_t kvrail_publisher_grow(struct kvrail_publisher *publisher,
                              uint32_t pool,
                              uint32_t slot,
                              struct kvrail_location *location);

// Makes all parts below number `parts` ready of a page that grows. Their bytes are written, as
// kvrail_publisher_publish() asks for, and are not written again before the slot is begun again.
//
// # Safety
//
// `location` is null, or points to a place for the page's location.
int32_t kvrail_publisher_set_ready(struct kvrail_publisher *publisher,
                                   uint32_t pool,
                                   uint32_t slot,
                                   uint32_t parts,
                                   struct kvrail_location *location);

// Publishes the whole page in a slot that was begun, and ends its writing. All bytes are written,
// and visible to the devices and processes that read them: other threads that wrote have handed
// their bytes to this one by a lock or a join, and ended non-temporal stores with sfence; copies
// and kernels of a GPU are complete, and the host knows.
//
// # Safety
//
// `location` is null, or points to a place for the page's location.
int32_t kvrail_publisher_publish(struct kvrail_publisher *publisher,
                                 uint32_t pool,
                                 uint32_t slot,
                                 struct kvrail_location *location);

// Ends the writing of a slot that was begun without publishing it: it stays a miss. A page that
// grows is taken back with its ready parts.
int32_t kvrail_publisher_abandon(struct kvrail_publisher *publisher, uint32_t pool, uint32_t slot);

// Takes the page in a slot back: from now on every reader misses it. A page that grows is ended by
// that. A slot that was begun and does not grow can still be published.
int32_t kvrail_publisher_invalidate(struct kvrail_publisher *publisher,
                                    uint32_t pool,
                                    uint32_t slot);

// The location of the page in a slot. `*published` is 1 if there is one, else 0.
//
// # Safety
//
// `location` and `published` are null, or point to places for results.
int32_t kvrail_publisher_location(struct kvrail_publisher *publisher,
                                  uint32_t pool,
                                  uint32_t slot,
                                  struct kvrail_location *location,
                                  uint32_t *published);

// How many bytes of memory a reader of this configuration takes. It opens no device.
//
// # Safety
//
// `config` is null, or points to a configuration whose pointers are null or point to what their
// fields say; texts end with a zero. `bytes` is null, or points to a place for the result.
int32_t kvrail_reader_bytes(const struct kvrail_reader_config *config, size_t *bytes);

// Starts a reader in memory of the caller's, at any alignment. Set-up and the control path (this
// call, connects, registrations) use the heap and some threads as well; the data path does not.
//
// # Safety
//
// `config` and `reader` are as for kvrail_reader_bytes(). `memory` is null, or points to `bytes`
// bytes that can be written, and that nothing else uses from now on until this call has failed or
// kvrail_reader_close() has returned KVRAIL_OK.
int32_t kvrail_reader_init(const struct kvrail_reader_config *config,
                           uint8_t *memory,
                           size_t bytes,
                           struct kvrail_reader **reader);

// Ends the reader's sessions, and waits (some seconds at most) until nothing writes into its slots
// any more. After KVRAIL_OK its memory and that of its slots are the caller's again. After
// KVRAIL_ERROR_STILL_READING both must stay as they are until the process ends.
//
// # Safety
//
// `reader` is null, or points to the memory of a reader, closed or not. So it is for every
// function here that takes a reader; and one thread at a time calls them for one reader.
int32_t kvrail_reader_close(struct kvrail_reader *reader);

// What the reader is and does.
//
// # Safety
//
// `info` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
// can be written.
int32_t kvrail_reader_query(struct kvrail_reader *reader, struct kvrail_reader_info *info);

// The name of a rail.
//
// # Safety
//
// `buffer` is null, or points to `bytes` bytes that can be written.
int32_t kvrail_reader_rail_name(struct kvrail_reader *reader,
                                uint32_t rail,
                                char *buffer,
                                size_t bytes);

// Registers memory of the caller's for pages of `layout`, the reader's if it is null. There is one
// destination for each region of the layout, in the layout's order, and they hold as many slots
// each. `numa` is the memory's NUMA node, or -1 if it is not known. Slots are named by `*region`
// and by their numbers from 0 on.
//
// # Safety
//
// `destinations` is null, or points to `count` destinations. Until kvrail_reader_unregister() has
// returned KVRAIL_OK for the region, or kvrail_reader_close() for the reader: their bytes stay
// mapped and writable; no other region has them; and no thread touches the bytes of a slot between
// the kvrail_reader_read() into it and its result.
// `region` and `slots` are null, or point to places for results; `slots` may be null.
int32_t kvrail_reader_register(struct kvrail_reader *reader,
                               const struct kvrail_layout *layout,
                               const struct kvrail_destination *destinations,
                               size_t count,
                               int32_t numa,
                               uint32_t *region,
                               uint32_t *slots);

// Registers memory of the caller's for slots of `slot_bytes` bytes each, of no layout: for parts
// of pages, which land nowhere else.
//
// # Safety
//
// As for kvrail_reader_register(), for one destination.
int32_t kvrail_reader_register_bytes(struct kvrail_reader *reader,
                                     const struct kvrail_destination *destination,
                                     uint32_t slot_bytes,
                                     int32_t numa,
                                     uint32_t *region,
                                     uint32_t *slots);

// Releases a region of which no slot is in flight. After KVRAIL_OK its memory is the caller's.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_unregister(struct kvrail_reader *reader, uint32_t region);

// Adds a plan, by which pages of `from` land in slots of `into`, without a copy in between.
// Fields are matched by name; docs/plans.md has the rules. With ranges, only the selected parts
// are copied, index for index. `*plan` is its number for kvrail_read.plan.
//
// # Safety
//
// `from_ranges` and `into_ranges` are null, or point to as many ranges as their counts say; `plan`
// is null, or points to a place for the number.
int32_t kvrail_reader_add_plan(struct kvrail_reader *reader,
                               const struct kvrail_layout *from,
                               const struct kvrail_range *from_ranges,
                               size_t from_count,
                               const struct kvrail_layout *into,
                               const struct kvrail_range *into_ranges,
                               size_t into_count,
                               uint32_t *plan);

// Forgets a plan that no page in flight follows.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_forget_plan(struct kvrail_reader *reader, uint32_t plan);

// The counters of a rail.
//
// # Safety
//
// `stats` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
// can be written.
int32_t kvrail_reader_rail_stats(struct kvrail_reader *reader,
                                 uint32_t rail,
                                 struct kvrail_rail_stats *stats);

// Connects to the publisher at `address`, for pools of any of the `count` layouts; for none, of
// the reader's. Blocks, for connect_ms of the configuration at most; batches in flight go on.
//
// # Safety
//
// `address` is null, or a text that ends with a zero; `keys` is null for no key, or points to
// keys; `layouts` is null, or points to `count` layouts; `peer` is null, or points to a place for
// the peer's number.
int32_t kvrail_reader_connect(struct kvrail_reader *reader,
                              const char *address,
                              const struct kvrail_keys *keys,
                              const struct kvrail_layout *const *layouts,
                              size_t count,
                              uint32_t *peer);

// Begins to connect, and returns at once. kvrail_reader_next_event() gives the outcome, with the
// number `*connecting`.
//
// # Safety
//
// As for kvrail_reader_connect().
int32_t kvrail_reader_begin_connect(struct kvrail_reader *reader,
                                    const char *address,
                                    const struct kvrail_keys *keys,
                                    const struct kvrail_layout *const *layouts,
                                    size_t count,
                                    uint64_t *connecting);

// Gives up a connect that was begun: it has no outcome any more, and a peer whose outcome was not
// taken is disconnected. One that has ended is no error.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_abandon_connect(struct kvrail_reader *reader, uint64_t connecting);

// Ends the session with a peer. Its pages in flight fail.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_disconnect(struct kvrail_reader *reader, uint32_t peer);

// The next event, or KVRAIL_EVENT_NONE. kvrail_reader_poll() takes events in.
//
// # Safety
//
// `event` is null, or points to a place for the event.
int32_t kvrail_reader_next_event(struct kvrail_reader *reader, struct kvrail_event *event);

// The pools of a peer. `*count` is how many there are, also when only `room` of them fit.
//
// # Safety
//
// `pools` is null, or points to places for `room` pools; `count` is null, or points to a place.
int32_t kvrail_reader_peer_pools(struct kvrail_reader *reader,
                                 uint32_t peer,
                                 struct kvrail_peer_pool *pools,
                                 size_t room,
                                 size_t *count);

// The pages that a peer has published in the slots from `first` on of a pool, `slots` of them at
// most, by reading its publication table: a snapshot. Blocks, for `timeout_ns` at most; batches in
// flight go on. Only pools that the peer had when it was connected are listed.
//
// # Safety
//
// `locations` is null, or points to places for `slots` locations; `count` is null, or points to a
// place for how many there are.
int32_t kvrail_reader_published(struct kvrail_reader *reader,
                                uint32_t peer,
                                uint32_t pool,
                                uint32_t first,
                                uint32_t slots,
                                uint64_t timeout_ns,
                                struct kvrail_location *locations,
                                size_t *count);

// The counters of a peer.
//
// # Safety
//
// As for kvrail_reader_rail_stats().
int32_t kvrail_reader_peer_stats(struct kvrail_reader *reader,
                                 uint32_t peer,
                                 struct kvrail_peer_stats *stats);

// Reads `count` pages as one batch: all of them are taken, or none and the error says which one
// could not be. From now on their slots are in flight, until their results come by
// kvrail_reader_results().
//
// # Safety
//
// `reads` is null, or points to `count` reads; `options` is null, or points to options whose
// struct_bytes is set; `ticket` is null, or points to a place for the batch's name, and may be
// null.
int32_t kvrail_reader_read(struct kvrail_reader *reader,
                           const struct kvrail_read *reads,
                           size_t count,
                           const struct kvrail_read_options *options,
                           uint64_t *ticket);

// As kvrail_reader_read(), for pages whose slots follow each other: one range says where many
// pages are and where they land, which costs a fraction of as many kvrail_read. The pages of all
// ranges are one batch, in the order of the ranges; all of them are taken, or none and the error
// says which one could not be. Pages that still grow, parts and plans need kvrail_reader_read().
// kvrail_reader_next_batch() takes the results of a whole batch, at as little cost.
//
// # Safety
//
// `ranges` is null, or points to `range_count` ranges, whose `locations` each are null, or point
// to `count` locations; they are not needed any more when the call returns. `options` and `ticket`
// as for kvrail_reader_read().
int32_t kvrail_reader_read_ranges(struct kvrail_reader *reader,
                                  const struct kvrail_read_range *ranges,
                                  size_t range_count,
                                  const struct kvrail_read_options *options,
                                  uint64_t *ticket);

// Takes in completions and news of sessions, and posts more READs. Does not block.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_poll(struct kvrail_reader *reader);

// Takes results of pages, `room` of them at most: those of the batches that are done, page by
// page, and those of early batches as their pages arrive. A batch's place is free when all of its
// results have been taken. `*count` is how many were written. Give room for a whole batch.
//
// # Safety
//
// `results` is null, or points to places for `room` results; `count` is null, or points to a
// place.
int32_t kvrail_reader_results(struct kvrail_reader *reader,
                              struct kvrail_result *results,
                              size_t room,
                              size_t *count);

// Takes the next batch that is done, whole: it has a result for each page, and all of its slots
// are the caller's again, also of a batch of which kvrail_reader_results() has given some.
// `result->pages` is 0 if no batch is done.
//
// Bit i % 64 of word i / 64 of `failed` is set if page i of the batch did not arrive, and clear if
// it did; bits beyond the last page are clear. `statuses[i]` becomes the status of page i if it
// did not arrive, and is left alone if it did. Either may be null, with 0 places, and is left out
// then. Otherwise it must have places for the whole batch: words for `failed`, pages for
// `statuses`. If it has not, the error is KVRAIL_ERROR_BUFFER, and the next call gives the batch.
//
// # Safety
//
// `result` is null, or points to a place; `failed` is null, or points to places for `words` words;
// `statuses` is null, or points to places for `room` statuses.
int32_t kvrail_reader_next_batch(struct kvrail_reader *reader,
                                 struct kvrail_batch_result *result,
                                 uint64_t *failed,
                                 size_t words,
                                 int32_t *statuses,
                                 size_t room);

// Sleeps until there is something to poll for: half of the outstanding bytes have arrived, a
// deadline has passed, a peer has something to say; or until `timeout_ns` has passed. With batches
// in flight it may sleep for up to 10 ms longer. Returns at once while results have not been
// taken.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_wait(struct kvrail_reader *reader, uint64_t timeout_ns);

// The file descriptor that epoll(7) or poll(2) waits for, in a program with an event loop of its
// own: readable once a reader that was armed has something to do, until the next
// kvrail_reader_poll(). It is the reader's, and stays the same until kvrail_reader_close().
//
// # Safety
//
// `fd` is null, or points to a place for the descriptor.
int32_t kvrail_reader_fd(struct kvrail_reader *reader, int32_t *fd);

// Prepares a sleep on the reader's descriptor. `*may_sleep` is 1 if the program may sleep, for
// `*timeout_ns` at most, and 0 if there is something to do already. kvrail_reader_poll() follows
// in both cases, after the sleep or at once. A batch that is read between this call and the sleep
// makes the descriptor readable; after any other call, arm again.
//
// # Safety
//
// `may_sleep` and `timeout_ns` are null, or point to places for results.
int32_t kvrail_reader_arm(struct kvrail_reader *reader, uint32_t *may_sleep, uint64_t *timeout_ns);

// Gives up all pages of a batch that have no result: they fail with KVRAIL_PAGE_WITHDRAWN. Their
// results come when nothing writes into their slots any more.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_withdraw(struct kvrail_reader *reader, uint64_t ticket);

// As kvrail_reader_withdraw(), for the page at position `index` of the batch. A page that has its
// result already keeps it.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_withdraw_page(struct kvrail_reader *reader, uint64_t ticket, uint32_t index);

// Moves a batch in flight to another class, a KVRAIL_CLASS_ constant.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_set_class(struct kvrail_reader *reader, uint64_t ticket, uint32_t priority);

// Opens the hand-over of a request. Its lease begins. The first reader that takes the request, now
// or later, gets it.
//
// # Safety
//
// `request` is null, or points to a request; `handover` is null, or points to a place for the
// result.
int32_t kvrail_handover_open(struct kvrail_publisher *publisher,
                             const struct kvrail_request_id *request,
                             uint64_t *handover);

// Adds pages at the end of the list of a hand-over, by the locations that kvrail_publisher_grow(),
// kvrail_publisher_set_ready() or kvrail_publisher_publish() gave. The parts that are ready in a
// location may be read already. All of them are added, or none. Until the hand-over has ended
// their slots are not begun.
//
// # Safety
//
// `locations` is null, or points to `count` locations.
int32_t kvrail_handover_append(struct kvrail_publisher *publisher,
                               uint64_t handover,
                               const struct kvrail_location *locations,
                               size_t count);

// Says that of each of the `count` pages from place `first` of the list on, at least `parts` parts
// may be read; KVRAIL_WHOLE_PAGE for all of them. Call it after kvrail_publisher_set_ready() or
// kvrail_publisher_publish() of these pages.
int32_t kvrail_handover_set_ready(struct kvrail_publisher *publisher,
                                  uint64_t handover,
                                  uint32_t first,
                                  uint32_t count,
                                  uint32_t parts);

// Says that the list grows no more, and neither do the parts that are ready.
int32_t kvrail_handover_complete(struct kvrail_publisher *publisher, uint64_t handover);

// Ends a hand-over because its request is no longer computed. Its reader is told. The end comes by
// kvrail_handover_next_ended() like any other.
int32_t kvrail_handover_abort(struct kvrail_publisher *publisher, uint64_t handover);

// Says that a request will not be opened. Readers that wait for it are told at once.
//
// # Safety
//
// `request` is null, or points to a request.
int32_t kvrail_handover_reject(struct kvrail_publisher *publisher,
                               const struct kvrail_request_id *request);

// The next hand-over that has ended, whichever side ended it: each one that was opened comes once.
// Waits for it, `timeout_ns` at most; `ended->handover` is 0 if no hand-over ended. From now on
// the pages of its list are misses, and their slots can be begun.
//
// `blocks` gets the pages of the list. If it has less room than `ended->blocks`, the call answers
// KVRAIL_ERROR_BUFFER, and the next one has the same hand-over again. With a null pointer the list
// is not given: for callers that know it.
//
// # Safety
//
// `ended` is null, or points to a place for the result; `blocks` is null, or points to places for
// `room` locations.
int32_t kvrail_handover_next_ended(struct kvrail_publisher *publisher,
                                   uint64_t timeout_ns,
                                   struct kvrail_ended_handover *ended,
                                   struct kvrail_location *blocks,
                                   size_t room);

// Takes a request from a peer: the peer hands its pages over to this reader. The peer waits up to
// `wait_ns` for a request that it does not know yet, a minute at most. Does not block:
// kvrail_reader_next_taking_event() says what comes of it. The reader renews the lease by itself,
// as long as kvrail_reader_poll() is called.
//
// # Safety
//
// `request` is null, or points to a request; `taking` is null, or points to a place for the
// number of what was taken.
int32_t kvrail_reader_take(struct kvrail_reader *reader,
                           uint32_t peer,
                           const struct kvrail_request_id *request,
                           uint32_t priority,
                           uint64_t wait_ns,
                           uint64_t *taking);

// The next event of a request that was taken; its kind is KVRAIL_TAKING_NONE if nothing happened.
// kvrail_reader_poll() takes events in. Events of one request are merged until they are fetched,
// so each says the newest state. When a peer is lost (KVRAIL_EVENT_LOST) or disconnected, all that
// was taken from it is over without an event of its own.
//
// # Safety
//
// `event` is null, or points to a place for the event.
int32_t kvrail_reader_next_taking_event(struct kvrail_reader *reader,
                                        struct kvrail_taking_event *event);

// The pages of a request from place `first` of its list on, as far as they are known: `*count`
// locations, at most `room`. A page whose `ready` is not KVRAIL_WHOLE_PAGE is read with
// kvrail_read.needs at most `ready`.
//
// # Safety
//
// `locations` is null, or points to places for `room` locations; `count` is null, or points to a
// place.
int32_t kvrail_reader_blocks(struct kvrail_reader *reader,
                             uint64_t taking,
                             uint32_t first,
                             struct kvrail_location *locations,
                             size_t room,
                             size_t *count);

// This side has what it wants of a request, and reads no more of its pages. Call it when all
// batches that read them have their results. From now on `taking` names nothing.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_done(struct kvrail_reader *reader, uint64_t taking);

// This side wants no more of a request, for `reason`, a KVRAIL_GIVE_UP_ constant. From now on
// `taking` names nothing.
//
// # Safety
//
// As for kvrail_reader_close().
int32_t kvrail_reader_give_up(struct kvrail_reader *reader, uint64_t taking, uint32_t reason);

// Starts a node. Its threads run until kvrail_node_close().
//
// # Safety
//
// `config` is null, or points to a configuration whose pointers are null or point to what their
// fields say; texts end with a zero. `node` is null, or points to a place for the result.
int32_t kvrail_node_start(const struct kvrail_node_config *config, struct kvrail_node **node);

// Ends a node: gets that are under way become misses, every page of its pools is a miss for
// others, and its sessions end. Waits for calls of this node that are under way in other threads,
// and then takes some seconds at most. After KVRAIL_OK nothing uses the caller's memory any more.
// After KVRAIL_ERROR_STILL_READING the node is closed as well, and the memory that was registered
// by kvrail_node_register() must stay until the process ends: hardware may still write there.
// A child of a fork has a copy of its parent's node, which this forgets: the node goes on in the
// parent.
int32_t kvrail_node_close(struct kvrail_node *node);

// The address at which other nodes reach it, with the port that the system chose. A node without
// pools has none, and the text is empty.
//
// # Safety
//
// `buffer` is null, or points to `bytes` bytes that can be written.
int32_t kvrail_node_address(struct kvrail_node *node, char *buffer, size_t bytes);

// A space of keys for pages of `layout`, by a number that put, get and the others take. Pages of
// two spaces never meet, whatever their keys are: `model` is the model and its revision, and
// `shape` what else keeps keys apart, such as the element type or "tp 2 of 8". Nodes find each
// other's pages where layout, model and shape are the same. Asked for again, it is the same
// number.
//
// # Safety
//
// `model` and `shape` are null, or texts that end with a zero; a null `shape` is an empty one.
// `space` is null, or points to a place for the result.
int32_t kvrail_node_space(struct kvrail_node *node,
                          const struct kvrail_layout *layout,
                          const char *model,
                          const char *shape,
                          uint32_t *space);

// Registers memory that pages of `layout` land in: one destination for each region of the layout.
// Place number i of the memory is the i-th page of it, and kvrail_node_get() names places by these
// numbers. `numa` is the memory's NUMA node, or -1. `*count` gets how many places there are.
//
// # Safety
//
// Until kvrail_node_unregister() or kvrail_node_close() has returned KVRAIL_OK, the memory stays
// mapped, readable and writable by the CPU, and no other registration has it: a page that lands by
// one of two would overwrite one that landed by the other. From a get of a place until its
// result, the place is the library's; and until kvrail_node_settle() says that it is settled, if
// the get said that it is not. `destinations` is null, or points to `destination_count`
// destinations; `places` and `count` are null, or point to places for results.
int32_t kvrail_node_register(struct kvrail_node *node,
                             const struct kvrail_layout *layout,
                             const struct kvrail_destination *destinations,
                             size_t destination_count,
                             int32_t numa,
                             uint32_t *places,
                             uint32_t *count);

// Releases registered memory, all of whose places must be free. Where several threads call it at
// once for the same memory, one of them releases it, and the others wait for the outcome.
//
// KVRAIL_OK: nothing uses the memory any more. KVRAIL_ERROR_PLACE_BUSY: a place, which the text
// names, is not free, and nothing has changed. KVRAIL_ERROR_PLACES: it was never registered, or
// was released before. KVRAIL_ERROR_STILL_READING, from then on at every call: a reader did not
// release it, and the memory must stay until the process ends; its places are never free again.
// A get that is begun while this runs may be refused with KVRAIL_ERROR_PLACE_BUSY.
int32_t kvrail_node_unregister(struct kvrail_node *node, uint32_t places);

// Waits up to `timeout_ns` until each of these places is free: no get uses it, and no hardware
// writes into it. KVRAIL_ERROR_PLACE_BUSY names the first that is not.
//
// # Safety
//
// `indices` is null, or points to `count` numbers of places.
int32_t kvrail_node_settle(struct kvrail_node *node,
                           uint32_t places,
                           const uint32_t *indices,
                           size_t count,
                           uint64_t timeout_ns);

// Waits up to `timeout_ns` until the directory has been told of every page that was put or removed
// before. A put waits for no directory, so other nodes find its page a moment later.
int32_t kvrail_node_flush(struct kvrail_node *node, uint64_t timeout_ns);

// Removes all pages of the node's pools, and forgets who has which page. `*removed` gets how many
// pages were removed.
//
// # Safety
//
// `removed` is null, or points to a place for the result.
int32_t kvrail_node_clear(struct kvrail_node *node, uint64_t *removed);

// The node's numbers.
//
// # Safety
//
// `stats` is null, or points to a structure that can be written.
int32_t kvrail_node_query(struct kvrail_node *node, struct kvrail_node_stats *stats);

// Makes the pages in these slots of a pool of the caller's memory misses for every reader. Call it
// before the first byte of a slot is written, and before a kernel that writes one is launched.
//
// # Safety
//
// `slots` is null, or points to `count` numbers of slots.
int32_t kvrail_node_begin_slots(struct kvrail_node *node,
                                uint32_t pool,
                                const uint32_t *slots,
                                size_t count);

// Publishes the pages that the caller has written into slots of a pool of its own memory, each
// under its key. `statuses[i]` gets KVRAIL_OK, also where another slot has the page of the key
// already, or why page i is not published. What kvrail_publisher_publish() asks for holds for the
// bytes.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `slots` and `statuses` are null, or point to a number, and to a place for one, for each key.
int32_t kvrail_node_publish_slots(struct kvrail_node *node,
                                  uint32_t pool,
                                  uint32_t space,
                                  const struct kvrail_page_keys *keys,
                                  const uint32_t *slots,
                                  int32_t *statuses);

// Stores pages in the node's own pool of the space's layout. `pages` has the address of each
// region of each page: those of page 0 first. `statuses[i]` gets KVRAIL_OK if page i is stored or
// was there already, KVRAIL_PUT_UNDERWAY if another thread is storing it, or why it is not stored.
// It waits for nothing: where the pool is full, it evicts pages.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `pages` is null, or points to as many addresses as the keys times the regions of the layout,
// each of as many bytes as the region has, which are not written during the call. `statuses` is
// null, or points to a place for each key; `counts` is null, or points to a place for the result.
int32_t kvrail_node_put(struct kvrail_node *node,
                        uint32_t space,
                        const struct kvrail_page_keys *keys,
                        const uint8_t *const *pages,
                        int32_t *statuses,
                        struct kvrail_put_counts *counts);

// Stores the pages in these places of registered memory: as kvrail_node_put(), from place
// `indices[i]` for key i. A place is used by one call at a time.
//
// # Safety
//
// As for kvrail_node_put(). `indices` is null, or points to a number for each key. The bytes of
// the places are not written during the call.
int32_t kvrail_node_put_places(struct kvrail_node *node,
                               uint32_t space,
                               const struct kvrail_page_keys *keys,
                               uint32_t places,
                               const uint32_t *indices,
                               int32_t *statuses,
                               struct kvrail_put_counts *counts);

// Gets pages into places of registered memory: that of key i into place `indices[i]`. Blocks until
// all have results, which is 0.1 seconds after `timeout_ns` at the latest. `statuses[i]` gets
// KVRAIL_OK if the page is in its place, whole and the right one, or why it is not; then the bytes
// of the place are unspecified. kvrail_last_error() has the text of the first miss.
//
// Every place is free, and named once; otherwise the call fails with KVRAIL_ERROR_PLACE_BUSY.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `indices` and `statuses` are null, or point to a number, and to a place for one, for each key.
// `counts` is null, or points to a place for the result.
int32_t kvrail_node_get(struct kvrail_node *node,
                        uint32_t space,
                        const struct kvrail_page_keys *keys,
                        uint32_t places,
                        const uint32_t *indices,
                        uint64_t timeout_ns,
                        int32_t *statuses,
                        struct kvrail_get_counts *counts);

// Gets groups of pages, all or nothing: as kvrail_node_get(), and the pages of a group are all
// hits or all misses. A group is a row of keys, each of a space and with a place of its own, such
// as the pages that several pools of a hybrid model have for the same tokens. `pages` has a page
// for each key. A page that was found in a group of which another page is a miss has the status
// KVRAIL_MISS_GROUP, and the bytes of its place are unspecified.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `pages` and `statuses` are null, or point to a page, and to a place for a number, for each key.
// `counts` is null, or points to a place for the result.
int32_t kvrail_node_get_groups(struct kvrail_node *node,
                               const struct kvrail_page_keys *keys,
                               const struct kvrail_group_page *pages,
                               uint64_t timeout_ns,
                               int32_t *statuses,
                               struct kvrail_get_counts *counts);

// Begins to get groups of pages, as kvrail_node_get_groups(), and does not wait: the ticket and
// the tag are those of kvrail_node_begin_get(), and kvrail_node_end_get() has the results.
//
// # Safety
//
// As for kvrail_node_get_groups(). `ticket` is null, or points to a place for the result. The
// places of the pages are the library's as kvrail_node_begin_get() says.
int32_t kvrail_node_begin_get_groups(struct kvrail_node *node,
                                     const struct kvrail_page_keys *keys,
                                     const struct kvrail_group_page *pages,
                                     uint64_t timeout_ns,
                                     uint64_t tag,
                                     uint64_t *ticket);

// Begins to get pages, as kvrail_node_get(), and does not wait. `*ticket` gets the number by which
// kvrail_node_end_get() asks for the results; `tag` is a number of the caller's, which
// kvrail_node_ended() gives back.
//
// # Safety
//
// As for kvrail_node_get(). The places are the library's until the results were taken, or the get
// was abandoned and kvrail_node_settle() has found them free.
int32_t kvrail_node_begin_get(struct kvrail_node *node,
                              uint32_t space,
                              const struct kvrail_page_keys *keys,
                              uint32_t places,
                              const uint32_t *indices,
                              uint64_t timeout_ns,
                              uint64_t tag,
                              uint64_t *ticket);

// The results of a get that was begun, as kvrail_node_get() gives them, and the end of its ticket.
// Waits for them up to `timeout_ns`; 0 only looks. KVRAIL_ERROR_UNDERWAY: they are not there yet,
// and nothing has changed. `count` is the number of keys of the get.
//
// # Safety
//
// `statuses` is null, or points to `count` places; `counts` is null, or points to a place.
int32_t kvrail_node_end_get(struct kvrail_node *node,
                            uint64_t ticket,
                            uint64_t timeout_ns,
                            int32_t *statuses,
                            size_t count,
                            struct kvrail_get_counts *counts);

// Gives up a get that was begun: its ticket ends, and its places are free as soon as nothing
// writes into them any more.
int32_t kvrail_node_abandon_get(struct kvrail_node *node, uint64_t ticket);

// A descriptor for poll(2) and epoll(7): it is readable while kvrail_node_ended() has gets to
// name. It is the node's, which closes it.
//
// # Safety
//
// `fd` is null, or points to a place for the result.
int32_t kvrail_node_fd(struct kvrail_node *node, int32_t *fd);

// The gets that were begun and have ended since they were last asked for, each once, at most
// `capacity`. `*count` gets how many. Those that stay unnamed keep the descriptor readable.
//
// # Safety
//
// `gets` is null, or points to `capacity` places; `count` is null, or points to a place.
int32_t kvrail_node_ended(struct kvrail_node *node,
                          struct kvrail_ended_get *gets,
                          size_t capacity,
                          size_t *count);

// Which keys have pages: in the node's own pools, or somewhere, as the directory says, which is a
// hint. `statuses[i]` gets KVRAIL_OK if key i has a page, 7200 if none is known, or 7202 if the
// directory did not answer for it by `timeout_ns`. `*leading` gets how many keys from the first on
// have pages without a gap.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `statuses` is null, or points to a place for each key; `leading` is null, or points to a place.
int32_t kvrail_node_exists(struct kvrail_node *node,
                           uint32_t space,
                           const struct kvrail_page_keys *keys,
                           uint64_t timeout_ns,
                           int32_t *statuses,
                           size_t *leading);

// Removes pages from the node's own pools: each is a miss for every reader when this returns.
// Pages of other nodes stay. `*removed` gets how many there were.
//
// # Safety
//
// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
// `removed` is null, or points to a place for the result.
int32_t kvrail_node_remove(struct kvrail_node *node,
                           uint32_t space,
                           const struct kvrail_page_keys *keys,
                           size_t *removed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KVRAIL_H */
