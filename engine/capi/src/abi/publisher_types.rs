//! The structures of the producer's side.
#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::c_char;

use super::layout_types::kvrail_layout;

/// Pools of pages that peers read, and the server that tells peers of them. Threads share it.
#[derive(Debug)]
pub struct kvrail_publisher {
    _opaque: (),
}

/// Memory that the caller owns and a publisher publishes: a handle of it.
#[derive(Debug)]
pub struct kvrail_memory {
    _opaque: (),
}

/// The key that all peers of a group share. A null pointer to it means no key, with which only
/// addresses of loopback can be listened on. Exactly one of `hex` and `file` is not null.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_keys {
    /// 64 hexadecimal digits.
    pub hex: *const c_char,
    /// A file with 32 bytes or 64 digits, to which other users have no access.
    pub file: *const c_char,
    /// The other key during a rotation, as digits, or null.
    pub other_hex: *const c_char,
    /// The other key during a rotation, as a file, or null.
    pub other_file: *const c_char,
}

/// A digest of the key of a page: kvrail_tag() makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct kvrail_key_tag {
    /// The lower 64 bits.
    pub low: u64,
    /// The upper 64 bits.
    pub high: u64,
}

/// Where a page is, and in which publication: plain data, which travels however the application
/// likes. It is a hint: the reader checks it, so a stale or forged one is a miss. Only `ready` must
/// be true: it comes from the owner, or from kvrail_reader_published().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct kvrail_location {
    /// The pool's number at its publisher.
    pub pool: u32,
    /// The slot within the pool.
    pub slot: u32,
    /// The publication.
    pub generation: u64,
    /// The digest of the page's key.
    pub tag: kvrail_key_tag,
    /// How many parts are ready; KVRAIL_WHOLE_PAGE if all are.
    pub ready: u32,
    /// 0.
    pub reserved: u32,
}

/// Where the pages of one region of a pool are, in memory of the caller's: one page a slot, at
/// equal distances.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_pool_region {
    /// The memory.
    pub memory: *const kvrail_memory,
    /// The first byte of the memory that counts.
    pub first: u64,
    /// How many bytes count; 0 for all up to the end.
    pub bytes: u64,
    /// Bytes from one slot to the next; 0 for those of a page.
    pub stride: u64,
    /// Where in each stride the page begins.
    pub offset: u64,
}

/// A pool: slots for pages of one layout, in memory of the publisher's own or of the caller's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_pool {
    /// The layout of the pages.
    pub layout: *const kvrail_layout,
    /// The regions of the layout in the caller's memory, in the layout's order; null for memory of
    /// the publisher's own.
    pub regions: *const kvrail_pool_region,
    /// How many regions.
    pub region_count: usize,
    /// How many slots, in memory of the publisher's own; 0 where `regions` says it.
    pub slots: u32,
    /// 0.
    pub reserved: u32,
}

/// What a publisher is started with. Zeros are the defaults of all fields that may be left out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_publisher_config {
    /// sizeof(kvrail_publisher_config).
    pub struct_bytes: u32,
    /// Over shared memory: 1 lets every process of the same user read the caller's memory, where
    /// the Yama security module forbids it to all but ancestors of this process. Any process of the
    /// user can then read all memory of this one.
    pub permit_any_reader: u32,
    /// The producer's name, 1 to 64 bytes.
    pub node: *const c_char,
    /// Where readers connect: "127.0.0.1:0" for any free port, "[::]:7700", "host:7700".
    pub listen: *const c_char,
    /// The rails: "shm:2", "tcp:192.0.2.1:1" (functional only), "verbs:auto", "verbs:mlx5_0".
    pub transport: *const c_char,
    /// The key, or null for none.
    pub keys: *const kvrail_keys,
    /// The first pools, numbered from 0, at least one.
    pub pools: *const kvrail_pool,
    /// How many pools.
    pub pool_count: usize,
    /// The most bytes of one registration of memory; 0 for what the rails can do.
    pub piece_bytes: u64,
    /// How many registrations are made at the same time; 0 for one for each rail.
    pub registrations: u32,
    /// 0.
    pub reserved: u32,
}

/// The bytes of a slot in a pool of the publisher's own.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_slot_bytes {
    /// The page, all regions of its layout one behind the other; null in a pool of the caller's
    /// memory.
    pub address: *mut u8,
    /// How many bytes.
    pub bytes: u64,
}
