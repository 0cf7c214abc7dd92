//! The constants of the header.

/// The number of this binary interface. It changes when a function or a structure changes so that
/// a program that was compiled with another kvrail.h cannot be served any more: compare it with
/// kvrail_abi_version(), which is the number of the library that runs. Structures that begin with
/// struct_bytes grow at their end without a new number.
pub const KVRAIL_ABI_VERSION: u32 = 1;

/// The call succeeded, or the page arrived: whole, and still what its location names.
pub const KVRAIL_OK: i32 = 0;

/// READs of the page failed in a way that another path does not change.
pub const KVRAIL_PAGE_FAULT: i32 = 2051;
/// The deadline passed before the page had arrived and was validated.
pub const KVRAIL_PAGE_DEADLINE: i32 = 2052;
/// The peer was removed.
pub const KVRAIL_PAGE_PEER_GONE: i32 = 2053;
/// The page was not read, since READs of it, or of other pages of its region, have killed lanes.
pub const KVRAIL_PAGE_SET_ASIDE: i32 = 2054;
/// The caller withdrew the page, or its batch.
pub const KVRAIL_PAGE_WITHDRAWN: i32 = 2055;
/// The owner has taken the page's pool back.
pub const KVRAIL_PAGE_POOL_GONE: i32 = 2056;
/// The deadline passed, and no lane to the peer was up.
pub const KVRAIL_PAGE_NO_LANE: i32 = 2057;
/// A miss: the owner was overwriting the slot.
pub const KVRAIL_MISS_OVERWRITING: i32 = 2060;
/// A miss: the slot has been published again, so the location is stale or forged.
pub const KVRAIL_MISS_GENERATION: i32 = 2061;
/// A miss: the slot holds the page of another key.
pub const KVRAIL_MISS_KEY: i32 = 2062;
/// A miss: the location says that more parts are ready than the owner ever said.
pub const KVRAIL_MISS_NOT_READY: i32 = 2063;
/// A miss of a node's get: another page of the same group is a miss.
pub const KVRAIL_MISS_GROUP: i32 = 7212;

/// A pointer that must not be null is null.
pub const KVRAIL_ERROR_NULL: i32 = 8000;
/// The field struct_bytes of a structure is less than this library knows.
pub const KVRAIL_ERROR_STRUCT_BYTES: i32 = 8001;
/// A structure of a later version has a field set that this library does not know.
pub const KVRAIL_ERROR_NEWER_STRUCT: i32 = 8002;
/// A text is not UTF-8.
pub const KVRAIL_ERROR_TEXT: i32 = 8003;
/// A number is not a value that its argument can have.
pub const KVRAIL_ERROR_VALUE: i32 = 8004;
/// The handle is closed, or none of this kind.
pub const KVRAIL_ERROR_HANDLE: i32 = 8005;
/// Another call of the same reader is under way.
pub const KVRAIL_ERROR_IN_USE: i32 = 8006;
/// A defect of the library: a panic was caught.
pub const KVRAIL_ERROR_PANIC: i32 = 8007;
/// An earlier call of this reader panicked: it can only be closed.
pub const KVRAIL_ERROR_POISONED: i32 = 8008;
/// The caller's buffer is too short.
pub const KVRAIL_ERROR_BUFFER: i32 = 8009;
/// The text names no transport.
pub const KVRAIL_ERROR_TRANSPORT: i32 = 8010;
/// The transport is not in this build.
pub const KVRAIL_ERROR_NOT_BUILT: i32 = 8011;
/// The memory for a reader is too small.
pub const KVRAIL_ERROR_MEMORY: i32 = 8012;
/// A maximum is larger than the library has readers for.
pub const KVRAIL_ERROR_MAXIMA: i32 = 8013;
/// No key was given, or two ways to give one.
pub const KVRAIL_ERROR_KEY: i32 = 8014;
/// No layout of the catalogue has this name.
pub const KVRAIL_ERROR_LAYOUT_NAME: i32 = 8015;
/// The process has declared as many layouts or names as it may.
pub const KVRAIL_ERROR_LAYOUT_LIMIT: i32 = 8016;
/// A pointer is not aligned for what it points to.
pub const KVRAIL_ERROR_ALIGNMENT: i32 = 8017;
/// The reader knows no such peer, or it is gone.
pub const KVRAIL_ERROR_PEER: i32 = 8020;
/// The reader has no such destination region.
pub const KVRAIL_ERROR_REGION: i32 = 8021;
/// The region has no such slot.
pub const KVRAIL_ERROR_SLOT: i32 = 8022;
/// The slot is in flight: a READ may be writing into it.
pub const KVRAIL_ERROR_SLOT_IN_FLIGHT: i32 = 8023;
/// The peer has no such pool that this reader knows.
pub const KVRAIL_ERROR_POOL: i32 = 8024;
/// The reader has no such plan.
pub const KVRAIL_ERROR_PLAN: i32 = 8025;
/// As many batches are in flight, or have results that were not taken, as the reader has.
pub const KVRAIL_ERROR_BUSY: i32 = 8026;
/// More pages were asked for than a batch holds.
pub const KVRAIL_ERROR_TOO_MANY_READS: i32 = 8027;
/// Slots of the region are in flight, so it cannot be released.
pub const KVRAIL_ERROR_REGION_BUSY: i32 = 8028;
/// The reader is closed, but its memory and its slots must stay until the process ends.
pub const KVRAIL_ERROR_STILL_READING: i32 = 8029;
/// No request that was taken has this number, or it is over.
pub const KVRAIL_ERROR_TAKING: i32 = 8030;
/// The publisher has no such pool.
pub const KVRAIL_ERROR_NO_POOL: i32 = 8040;
/// The slot has not been begun.
pub const KVRAIL_ERROR_NOT_BEGUN: i32 = 8041;
/// The page grows already.
pub const KVRAIL_ERROR_GROWS: i32 = 8042;
/// The system refused a file descriptor.
pub const KVRAIL_ERROR_DESCRIPTOR: i32 = 8043;
/// The space of keys belongs to another node, or was never made.
pub const KVRAIL_ERROR_SPACE: i32 = 8050;
/// The registered memory belongs to another node, or was released.
pub const KVRAIL_ERROR_PLACES: i32 = 8051;
/// The place is not there, or is not free: a get uses it, or hardware may still write into it.
pub const KVRAIL_ERROR_PLACE_BUSY: i32 = 8052;
/// The memory, or the pool, is for pages of another layout than those of the space.
pub const KVRAIL_ERROR_SPACE_LAYOUT: i32 = 8053;
/// The node has no pool of its own for pages of the layout.
pub const KVRAIL_ERROR_NO_OWN_POOL: i32 = 8054;
/// The get is still under way.
pub const KVRAIL_ERROR_UNDERWAY: i32 = 8055;
/// No get that was begun has this ticket, or its results were taken.
pub const KVRAIL_ERROR_TICKET: i32 = 8056;
/// The text names no directory.
pub const KVRAIL_ERROR_DIRECTORY: i32 = 8057;
/// A status of a put: another thread is storing the page. It is not there yet, and will not be if
/// that thread gives up.
pub const KVRAIL_PUT_UNDERWAY: i32 = 8058;

/// kvrail_node_config.cache_ttl_ns: the node remembers nothing.
pub const KVRAIL_NO_CACHE: u64 = u64::MAX;

/// The axis of the transformer layers.
pub const KVRAIL_AXIS_LAYER: u32 = 1;
/// The axis of the token states.
pub const KVRAIL_AXIS_TOKEN: u32 = 2;
/// The axis of K (index 0) and V, where both have one shape.
pub const KVRAIL_AXIS_PART: u32 = 3;
/// The axis of the KV heads.
pub const KVRAIL_AXIS_HEAD: u32 = 4;
/// The axis of blocks of tokens, where a page has several of an engine's.
pub const KVRAIL_AXIS_BLOCK: u32 = 5;
/// Add a number from 0 to 255 of your own for any other axis.
pub const KVRAIL_AXIS_OTHER: u32 = 256;

/// Unsigned byte: 1 byte.
pub const KVRAIL_ELEMENT_U8: u32 = 1;
/// Signed byte: 1 byte.
pub const KVRAIL_ELEMENT_I8: u32 = 2;
/// IEEE 754 binary32: 4 bytes.
pub const KVRAIL_ELEMENT_F32: u32 = 3;
/// IEEE 754 binary16: 2 bytes.
pub const KVRAIL_ELEMENT_F16: u32 = 4;
/// bfloat16: 2 bytes.
pub const KVRAIL_ELEMENT_BF16: u32 = 5;
/// OCP 8-bit float E4M3 without infinities: 1 byte.
pub const KVRAIL_ELEMENT_E4M3: u32 = 6;
/// OCP 8-bit float E5M2: 1 byte.
pub const KVRAIL_ELEMENT_E5M2: u32 = 7;
/// OCP MX scale E8M0: 1 byte.
pub const KVRAIL_ELEMENT_UE8M0: u32 = 8;
/// Two OCP 4-bit floats E2M1 in 1 byte.
pub const KVRAIL_ELEMENT_FP4X2: u32 = 9;

/// One block for each index of the axis, densely one after the other.
pub const KVRAIL_LEVEL_AXIS: u32 = 1;
/// The same at a distance that is given at run time, by a kvrail_distance.
pub const KVRAIL_LEVEL_STRIDED: u32 = 2;
/// One region for each index of the axis.
pub const KVRAIL_LEVEL_REGIONS: u32 = 3;
/// The planes, densely one after the other.
pub const KVRAIL_LEVEL_PLANES: u32 = 4;
/// The planes at distances that are given at run time.
pub const KVRAIL_LEVEL_STRIDED_PLANES: u32 = 5;
/// Each plane in a region of its own.
pub const KVRAIL_LEVEL_REGION_PLANES: u32 = 6;
/// The levels that follow, padded to a multiple of `pad` bytes.
pub const KVRAIL_LEVEL_PAD: u32 = 7;

/// The page has all of the axis.
pub const KVRAIL_SPREAD_WHOLE: u32 = 0;
/// The axis is cut into `ranks` equal parts, of which this page has one.
pub const KVRAIL_SPREAD_SHARDED: u32 = 1;
/// Each of `ranks` ranks has all of the axis.
pub const KVRAIL_SPREAD_REPLICATED: u32 = 2;
/// The page has the indices from `first` on, of `of` in all.
pub const KVRAIL_SPREAD_STAGE: u32 = 3;
/// The rank is left open: kvrail_layout_at_rank() gives it.
pub const KVRAIL_RANK_OPEN: u32 = u32::MAX;

/// Bytes from one index of the axis to the next, in the plane.
pub const KVRAIL_DISTANCE_STRIDE: u32 = 1;
/// Where the plane begins, in bytes from the beginning of its region.
pub const KVRAIL_DISTANCE_PLANE: u32 = 2;
/// Bytes of each region that the plane has rows in.
pub const KVRAIL_DISTANCE_REGION_BYTES: u32 = 3;

/// kvrail_location.ready of a page that is written whole.
pub const KVRAIL_WHOLE_PAGE: u32 = u32::MAX;

/// Lanes are made at connect while there is room, and on demand otherwise.
pub const KVRAIL_LANES_AUTO: u32 = 0;
/// All lanes of a peer are made at connect, and kept.
pub const KVRAIL_LANES_AT_CONNECT: u32 = 1;
/// Lanes are made when a page of the peer is first read, and given back when they are idle.
pub const KVRAIL_LANES_ON_DEMAND: u32 = 2;

/// The page is read without validation: nothing proves that its bytes are one page, or which, or
/// that none is missing (docs/failure.md). For memory that does not change, and for measuring. Of
/// the location only pool and slot count.
pub const KVRAIL_READ_UNVALIDATED: u32 = 1;

/// Served first: a request waits for these pages.
pub const KVRAIL_CLASS_URGENT: u32 = 0;
/// Served when no urgent batch waits, and in one turn of sixteen otherwise.
pub const KVRAIL_CLASS_BACKGROUND: u32 = 1;

/// Each page has its result as soon as it has arrived, and its slot is free then. Otherwise all
/// results of a batch come when its last page has one, which costs fewer instructions.
pub const KVRAIL_BATCH_EARLY: u32 = 1;

/// There is no event.
pub const KVRAIL_EVENT_NONE: u32 = 0;
/// A connect that was begun has succeeded; `peer` is the peer.
pub const KVRAIL_EVENT_CONNECTED: u32 = 1;
/// A connect that was begun has failed with `status`.
pub const KVRAIL_EVENT_NOT_CONNECTED: u32 = 2;
/// The peer offers another pool, `pool`.
pub const KVRAIL_EVENT_POOL_CAME: u32 = 3;
/// The peer has taken the pool `pool` back.
pub const KVRAIL_EVENT_POOL_GONE: u32 = 4;
/// The session with the peer has ended, with `status`. Its number names no peer any more.
pub const KVRAIL_EVENT_LOST: u32 = 5;
/// The peer offers another pool, `pool`, which cannot be read, for the reason `status`: there are
/// no places for its regions, for instance. They are free when the peer is connected to anew.
pub const KVRAIL_EVENT_POOL_REFUSED: u32 = 6;

/// The reader has what it wanted.
pub const KVRAIL_HANDOVER_DONE: u32 = 1;
/// The reader wants no more of it.
pub const KVRAIL_HANDOVER_GIVEN_UP: u32 = 2;
/// The producer aborted it.
pub const KVRAIL_HANDOVER_ABORTED: u32 = 3;
/// No reader took it, or the reader did not renew, for the time of a lease.
pub const KVRAIL_HANDOVER_EXPIRED: u32 = 4;
/// The reader's session was lost.
pub const KVRAIL_HANDOVER_SESSION_LOST: u32 = 5;
/// The publisher stopped.
pub const KVRAIL_HANDOVER_STOPPED: u32 = 6;

/// The client that made the request has gone.
pub const KVRAIL_GIVE_UP_CLIENT_GONE: u32 = 1;
/// The reader has no room for the pages, or for their list.
pub const KVRAIL_GIVE_UP_NO_ROOM: u32 = 2;
/// Reading the pages failed.
pub const KVRAIL_GIVE_UP_FAILED: u32 = 3;

/// There is no event.
pub const KVRAIL_TAKING_NONE: u32 = 0;
/// The producer knows the request, and keeps its pages while the reader renews.
pub const KVRAIL_TAKING_TAKEN: u32 = 1;
/// The list has grown by `count` blocks from place `first` on. Some may have parts that are ready
/// already, which no other event says.
pub const KVRAIL_TAKING_GROWN: u32 = 2;
/// Of the `count` blocks from place `first` on, `parts` parts may be read.
pub const KVRAIL_TAKING_READY: u32 = 3;
/// The list grows no more, and neither do the parts that are ready.
pub const KVRAIL_TAKING_COMPLETE: u32 = 4;
/// By the reader's clock the lease ran out before it was renewed. The pages may have been
/// overwritten: their reads miss then.
pub const KVRAIL_TAKING_LEASE_RAN_OUT: u32 = 5;
/// The producer has ended the hand-over, for `reason`. The taking is gone.
pub const KVRAIL_TAKING_ENDED: u32 = 6;
/// The list got longer than the reader allows: the taking was given up, and is gone.
pub const KVRAIL_TAKING_TOO_LONG: u32 = 7;
/// The producer did not answer in time: the taking was given up, and is gone.
pub const KVRAIL_TAKING_UNANSWERED: u32 = 8;

/// The producer stopped computing the request.
pub const KVRAIL_END_ABORTED: u32 = 1;
/// The producer does not compute the request.
pub const KVRAIL_END_REJECTED: u32 = 2;
/// The producer learned of no such request within the time that the reader let it wait.
pub const KVRAIL_END_UNKNOWN: u32 = 3;
/// The lease ran out.
pub const KVRAIL_END_EXPIRED: u32 = 4;
/// Another reader has the request.
pub const KVRAIL_END_TAKEN_BY_OTHER: u32 = 5;
/// The session waits for as many unknown requests as the producer allows.
pub const KVRAIL_END_TOO_MANY: u32 = 6;
/// The producer is stopping.
pub const KVRAIL_END_STOPPING: u32 = 7;
