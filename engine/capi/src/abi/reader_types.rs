//! The structures of the reader's side.
#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::c_char;

use super::layout_types::kvrail_layout;
use super::publisher_types::kvrail_location;

/// A reader: an engine with its rails and sessions, in memory of the caller's. One thread at a time
/// calls its functions; it may be another one each time.
#[derive(Debug)]
pub struct kvrail_reader {
    _opaque: (),
}

/// What a reader is made for. Zeros are the defaults of all fields that may be left out. The
/// maxima decide how much memory it takes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_reader_config {
    /// sizeof(kvrail_reader_config).
    pub struct_bytes: u32,
    /// The most rails, 16 at most; 0 for 8.
    pub max_rails: u32,
    /// The rails: "shm:2", "tcp:1" (functional only), "verbs:auto", "verbs:mlx5_0,mlx5_1:2".
    pub transport: *const c_char,
    /// The reader's name, for logs and errors of its peers; null for one with the process's number.
    pub node: *const c_char,
    /// The layout of the pages that it reads, unless kvrail_reader_connect() names others.
    pub layout: *const kvrail_layout,
    /// The most peers at a time; 0 for 64.
    pub max_peers: u32,
    /// The most pages of one call of kvrail_reader_read(); 0 for 64.
    pub max_batch: u32,
    /// The most batches in flight or with results that were not taken; 0 for 16.
    pub max_batches: u32,
    /// The most lanes to all peers together; 0 for `lanes_per_rail` for each rail of each peer.
    pub max_lanes: u32,
    /// The most regions of all peers' pools together, a publication table counting as one; 0 for
    /// two pools of `layout` for each peer.
    pub max_regions: u32,
    /// Lanes from each rail to each peer; 0 for 1. A NIC wants 2 or more.
    pub lanes_per_rail: u32,
    /// KVRAIL_LANES_...
    pub lanes: u32,
    /// The most lanes over each rail at a time; 0 for as many as there is room for.
    pub lanes_budget: u32,
    /// Milliseconds without a READ after which lanes on demand are given back; 0 for a minute.
    pub lane_idle_ms: u32,
    /// Milliseconds that connecting to a peer may take; 0 for 10,000.
    pub connect_ms: u32,
    /// A page longer than this travels as several READs; 0 for what suits the rails.
    pub chunk_bytes: u32,
    /// The most READs outstanding on a rail; 0 for what suits the rails.
    pub rail_wrs: u32,
    /// The most bytes outstanding on a rail; 0 for what suits the rails.
    pub rail_bytes: u64,
    /// Nanoseconds after which a batch fails whose options do not say it; 0 for 10 seconds.
    pub timeout_ns: u64,
}

/// Memory that pages land in: one region of the slots of a layout.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_destination {
    /// Where slot 0 begins.
    pub address: *mut u8,
    /// Bytes of the memory.
    pub bytes: u64,
    /// Bytes from one slot to the next; 0 for those of a page.
    pub stride: u64,
}

/// One page that is to be read.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_read {
    /// The peer.
    pub peer: u32,
    /// The region of the slot, as kvrail_reader_register() gave it.
    pub region: u32,
    /// The slot that the page lands in.
    pub slot: u32,
    /// The plan by which it lands there, as kvrail_reader_add_plan() gave it; 0 for none.
    pub plan: u32,
    /// The page.
    pub location: kvrail_location,
    /// Of a page that grows: only parts below this number are read, by a plan or as a part; 0 if
    /// the whole page is needed.
    pub needs: u32,
    /// KVRAIL_READ_..., together by `|`.
    pub flags: u32,
    /// The first byte of a part of the page, which lands in a slot without a layout.
    pub part_offset: u32,
    /// Bytes of the part; 0 for the whole page.
    pub part_bytes: u32,
}

/// Pages of one peer that are to be read into consecutive slots.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_read_range {
    /// The peer.
    pub peer: u32,
    /// The region of the slots, as kvrail_reader_register() gave it.
    pub region: u32,
    /// The slot that the first page lands in. The next page lands in the next slot, and so on.
    pub first_slot: u32,
    /// KVRAIL_READ_..., together by `|`.
    pub flags: u32,
    /// The pages, whole ones, of any pools of the peer.
    pub locations: *const kvrail_location,
    /// How many pages.
    pub count: usize,
}

/// How a batch is read. A null pointer to it means zeros.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_read_options {
    /// sizeof(kvrail_read_options).
    pub struct_bytes: u32,
    /// KVRAIL_CLASS_...
    pub priority: u32,
    /// KVRAIL_BATCH_..., together by `|`.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Nanoseconds from now after which pages that have not arrived fail; 0 for the reader's.
    pub timeout_ns: u64,
    /// A number of the caller's own, which the results give back.
    pub tag: u64,
}

/// What has become of one page.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_result {
    /// The batch, as kvrail_reader_read() named it.
    pub ticket: u64,
    /// The caller's number of the batch.
    pub tag: u64,
    /// The position of the page in the batch, from 0.
    pub index: u32,
    /// KVRAIL_OK if the page arrived, KVRAIL_PAGE_... or KVRAIL_MISS_... if not. Then the bytes of
    /// the slot are unspecified.
    pub status: i32,
    /// The region of its slot, which is the caller's again.
    pub region: u32,
    /// The slot.
    pub slot: u32,
}

/// A batch that is done.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_batch_result {
    /// The batch, as kvrail_reader_read() or kvrail_reader_read_ranges() named it.
    pub ticket: u64,
    /// The caller's number of the batch.
    pub tag: u64,
    /// How many pages it has; 0 if no batch is done.
    pub pages: u32,
    /// How many of them did not arrive.
    pub failed: u32,
}

/// What a peer did, or the outcome of a connect.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_event {
    /// KVRAIL_EVENT_...
    pub kind: u32,
    /// The peer.
    pub peer: u32,
    /// The number that kvrail_reader_begin_connect() gave, of an outcome.
    pub connecting: u64,
    /// The pool, of KVRAIL_EVENT_POOL_CAME, _POOL_GONE and _POOL_REFUSED.
    pub pool: u32,
    /// Why, of KVRAIL_EVENT_NOT_CONNECTED, _LOST and _POOL_REFUSED; kvrail_last_error() has the
    /// text.
    pub status: i32,
}

/// A pool of a peer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_peer_pool {
    /// Its number.
    pub pool: u32,
    /// 0.
    pub reserved: u32,
    /// How many slots it has.
    pub slots: u64,
    /// Bytes of its pages.
    pub page_bytes: u64,
    /// The fingerprint of its layout.
    pub fingerprint: [u8; 16],
}

/// What a reader is and does.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_reader_info {
    /// sizeof(kvrail_reader_info), set by the caller.
    pub struct_bytes: u32,
    /// How many rails it drives.
    pub rails: u32,
    /// Batches in flight.
    pub in_flight: u32,
    /// Batches that there are.
    pub max_batches: u32,
    /// Pages that a batch holds.
    pub max_batch: u32,
    /// A page longer than this travels as several READs.
    pub chunk_bytes: u32,
}

/// Counters of a rail, since the reader was started.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_rail_stats {
    /// sizeof(kvrail_rail_stats), set by the caller.
    pub struct_bytes: u32,
    /// 0.
    pub reserved: u32,
    /// READs posted.
    pub posted: u64,
    /// Doorbells.
    pub commits: u64,
    /// Completions of any status.
    pub completions: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// READs that arrived.
    pub chunks: u64,
    /// Completions whose status says that the page is at fault.
    pub page_faults: u64,
    /// Completions whose status says that the path is at fault.
    pub path_faults: u64,
    /// Completions of flushed READs.
    pub flushed: u64,
    /// Completions of an earlier life of a lane.
    pub stale: u64,
    /// READs posted again here after their lane had failed.
    pub reposted: u64,
    /// Lanes that failed.
    pub lanes_failed: u64,
    /// Of these, lanes that completed nothing for too long.
    pub lanes_stalled: u64,
}

/// Counters of a peer, since it was connected.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_peer_stats {
    /// sizeof(kvrail_peer_stats), set by the caller.
    pub struct_bytes: u32,
    /// How many lanes lead to it.
    pub lanes: u32,
    /// Pages that arrived.
    pub pages: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Pages that were misses.
    pub misses: u64,
    /// Pages that failed by an error of their memory.
    pub faults: u64,
    /// Pages whose deadline passed.
    pub late: u64,
    /// Pages that were withdrawn.
    pub withdrawn: u64,
    /// How often the peer lost its last lane of a class.
    pub detours: u64,
}
