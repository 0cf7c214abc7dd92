//! The structures of hand-overs.
#![allow(non_camel_case_types, reason = "names of C")]

/// A request, as the engines on both sides call it: a number, or a UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct kvrail_request_id {
    /// The lower 64 bits.
    pub low: u64,
    /// The upper 64 bits.
    pub high: u64,
}

/// A hand-over that has ended.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_ended_handover {
    /// The hand-over, as kvrail_handover_open() gave it; 0 if none has ended.
    pub handover: u64,
    /// Its request, which may be opened anew.
    pub request: kvrail_request_id,
    /// KVRAIL_HANDOVER_...
    pub outcome: u32,
    /// Why the reader gave it up, of KVRAIL_HANDOVER_GIVEN_UP: KVRAIL_GIVE_UP_..., or another
    /// number below 65536 of a later version.
    pub reason: u32,
    /// How many blocks its list has.
    pub blocks: usize,
}

/// What has happened to a request that a reader has taken.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kvrail_taking_event {
    /// The request, as kvrail_reader_take() gave it.
    pub taking: u64,
    /// KVRAIL_TAKING_...
    pub kind: u32,
    /// The place in the list of the first block, of KVRAIL_TAKING_GROWN and KVRAIL_TAKING_READY.
    pub first: u32,
    /// How many blocks, of the same.
    pub count: u32,
    /// How many parts of each may be read, of KVRAIL_TAKING_READY; KVRAIL_WHOLE_PAGE for all.
    pub parts: u32,
    /// Why, of KVRAIL_TAKING_ENDED: KVRAIL_END_..., or another number below 65536 of a later
    /// version.
    pub reason: u32,
    /// 0.
    pub reserved: u32,
}
