//! The structures of a node: pages by key.
#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::c_char;

use super::layout_types::kvrail_layout;
use super::publisher_types::{kvrail_keys, kvrail_pool};

/// A node: pools of pages by key, readers that get pages of other nodes, and a directory that says
/// who has which page. Any number of threads share it.
#[derive(Debug)]
pub struct kvrail_node {
    _opaque: (),
}

/// What a node is started with. Zeros are the defaults of all fields that may be left out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_node_config {
    /// sizeof(kvrail_node_config).
    pub struct_bytes: u32,
    /// As in kvrail_publisher_config.
    pub permit_any_reader: u32,
    /// The node's name, 1 to 64 bytes.
    pub name: *const c_char,
    /// Where other nodes connect: "192.0.2.1:7700"; null for any free port of loopback.
    pub listen: *const c_char,
    /// The address that other nodes are told; null for that of `listen`.
    pub advertise: *const c_char,
    /// The zone that the node is in, or null: owners of pages in the same zone are read from first.
    pub zone: *const c_char,
    /// The rails: "shm:2", "tcp:192.0.2.1:1" (functional only), "verbs:auto".
    pub transport: *const c_char,
    /// The key that all nodes of the group share, or null for none.
    pub keys: *const kvrail_keys,
    /// The secret that keys of pages are hashed under, as 64 hexadecimal digits: the same on all
    /// nodes of the group, and another one than their key. Exactly one of this and
    /// `tag_secret_file` is not null.
    pub tag_secret_hex: *const c_char,
    /// The same secret as a file, to which other users have no access.
    pub tag_secret_file: *const c_char,
    /// Who knows which node has which page: "none" (this node reads its own pools only), "embedded"
    /// (this node keeps the directory in its memory), "embedded:192.0.2.1:7700,192.0.2.2:7700" (the
    /// nodes that may keep it, the same list on all nodes), or, in a library with the feature
    /// `redis`, "redis://192.0.2.9". Null for "none".
    pub directory: *const c_char,
    /// Its pools, numbered from 0. A node without pools reads the pages of others.
    pub pools: *const kvrail_pool,
    /// How many pools.
    pub pool_count: usize,
    /// Further layouts that the node reads, beside those of its pools.
    pub layouts: *const *const kvrail_layout,
    /// How many of these.
    pub layout_count: usize,
    /// How many readers, each with rails and a thread of its own, 64 at most; 0 for 1.
    pub readers: u32,
    /// With how many pages a batch of READs is full enough to go, 8 to 128; 0 for 32.
    pub batch_pages: u32,
    /// For how many pages the node remembers who has them; 0 for 65,536.
    pub cache_records: u64,
    /// For how many nanoseconds it remembers that; 0 for five seconds. KVRAIL_NO_CACHE for no
    /// memory at all: each get asks the directory.
    pub cache_ttl_ns: u64,
    /// For how many nanoseconds a reader's thread without work polls before it sleeps; 0 for
    /// 10,000.
    pub spin_ns: u64,
}

/// Keys of pages: any bytes, 1 to 256 for each, one key behind the other.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_page_keys {
    /// All keys, one behind the other.
    pub bytes: *const u8,
    /// How many bytes they have together.
    pub byte_count: usize,
    /// How many bytes each key has; null if all have the same length.
    pub lengths: *const u32,
    /// How many keys.
    pub count: usize,
}

/// Where the page of a key comes from and goes to, in a get of groups.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_group_page {
    /// The space of its key: kvrail_node_space().
    pub space: u32,
    /// The registered memory that it lands in, of the space's layout: kvrail_node_register().
    pub places: u32,
    /// Its place there.
    pub index: u32,
    /// 1: it belongs to the group of the page before it. 0: it begins a group, as the first does.
    pub joined: u32,
}

/// What became of the keys of a get.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_get_counts {
    /// Pages that are in their places.
    pub hits: usize,
    /// How many keys from the first on are hits without a gap.
    pub leading_hits: usize,
    /// Places that hardware may still write into: wait for them by kvrail_node_settle() before
    /// anything else is put there.
    pub unsettled: usize,
}

/// What became of the keys of a put.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_put_counts {
    /// Pages that were stored.
    pub stored: usize,
    /// Pages that were there already.
    pub present: usize,
    /// How many keys from the first on have pages without a gap, stored or there already.
    pub leading: usize,
}

/// A get that was begun and has ended.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_ended_get {
    /// Its ticket.
    pub ticket: u64,
    /// The caller's number for it.
    pub tag: u64,
}

/// A node's numbers since its start. The call fills it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_node_stats {
    /// sizeof(kvrail_node_stats), set by the caller.
    pub struct_bytes: u32,
    /// Readers of other nodes that are connected to it.
    pub connected_readers: u32,
    /// Calls of get, and gets that were begun.
    pub gets: u64,
    /// Pages that its own pools had.
    pub hits_own_pool: u64,
    /// Pages whose owner the node remembered.
    pub hits_cache: u64,
    /// Pages whose owner the directory named.
    pub hits_directory: u64,
    /// Keys that were misses.
    pub misses: u64,
    /// The same by reason: [i] counts status 7200 + i.
    pub misses_by_reason: [u64; 16],
    /// Look-ups in the directory, each for a batch of keys.
    pub look_ups: u64,
    /// Keys that were looked up.
    pub keys_looked_up: u64,
    /// Places that hardware still might write into when their deadline had passed.
    pub late_places: u64,
    /// Pages that wait for its readers, or are being read.
    pub reading: u64,
    /// Of all pools of its own memory: slots.
    pub slots: u64,
    /// Slots with pages.
    pub pages: u64,
    /// Pages that were stored.
    pub puts: u64,
    /// Bytes of these.
    pub put_bytes: u64,
    /// Puts of a key whose page was there.
    pub puts_present: u64,
    /// Puts that found no slot.
    pub puts_refused: u64,
    /// Pages that made room for others.
    pub evictions: u64,
    /// Pages that were removed.
    pub removed: u64,
    /// Pages in pools of an engine's memory.
    pub engine_pages: u64,
}
