//! Why a call of C failed.

use engine::core::error::{FlightError, PageError, ReadError, SubmitError};
use engine::core::remote::PageRangeError;
use engine::session::OpenHandoverError;
use engine::session::handover::HandoverError;
use engine::{BlockError, TakeRequestError, WriteError};

/// Why a call failed. Its code is the status that the call returns.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CapiError {
    #[error("{what} is null")]
    Null { what: &'static str },
    #[error(
        "{name}.struct_bytes is {given}, and the structure has at least {least}: set it to sizeof({name})"
    )]
    StructBytes { name: &'static str, given: usize, least: usize },
    #[error(
        "{name} has {given} bytes, of which this library knows {known}, and one of the others is set: take the \
         library of the version of your kvrail.h"
    )]
    NewerStruct { name: &'static str, given: usize, known: usize },
    #[error("{what} is not UTF-8")]
    Text { what: &'static str },
    #[error("{what} is {value}: give {allowed}")]
    Value { what: &'static str, value: u64, allowed: &'static str },
    #[error("{what} is closed, or no such handle: give what this library returned, until you close it")]
    Handle { what: &'static str },
    #[error("another call of this reader is under way: one thread at a time calls it")]
    InUse,
    #[error("a defect of kvrail: {0}; please report it")]
    Panic(String),
    #[error("an earlier call of this reader ended by a defect: close it")]
    Poisoned,
    #[error("the buffer has {given} bytes or places, and {needed} are needed")]
    Buffer { needed: usize, given: usize },
    #[error("{text:?} names no transport: {why}; give shm:2, tcp:127.0.0.1:1 or verbs:auto")]
    Transport { text: String, why: &'static str },
    #[cfg_attr(feature = "verbs", allow(dead_code, reason = "this build has every transport"))]
    #[error("{0} is not in this build: build it with --features {0}")]
    NotBuilt(&'static str),
    #[error(
        "{given} bytes of memory for a reader that needs {needed}: ask kvrail_reader_bytes with this configuration"
    )]
    Memory { needed: usize, given: usize },
    #[error("{name} is {value}, and the largest reader has {most}")]
    Maxima { name: &'static str, value: u64, most: u64 },
    #[error("{0}")]
    Key(&'static str),
    #[error("no layout of the catalogue is called {0:?}: docs/layouts.md lists them")]
    LayoutName(String),
    #[error("the process has declared {limit} {what}, and more are not kept: declare each layout once")]
    LayoutLimit { what: &'static str, limit: usize },
    #[error("{what} is not aligned to {align} bytes")]
    Alignment { what: &'static str, align: usize },
    #[error("the {what} belongs to the process of which this one is a fork: use it there, or make one here")]
    OtherProcess { what: &'static str },
    #[error("no peer {peer:#x}: it never was, or is gone")]
    Peer { peer: u32 },
    #[error("no region {region}: register memory, or name a region that was")]
    Region { region: u32 },
    #[error("no slot {slot} in region {region}, which has {slots}")]
    Slot { region: u32, slot: u32, slots: usize },
    #[error("slot {slot} of region {region} is in flight: wait for its result, or take another")]
    SlotInFlight { region: u32, slot: u32 },
    #[error("the peer has no pool {pool} that this reader knows")]
    Pool { pool: u32 },
    #[error("no plan {plan}: add it first")]
    Plan { plan: u32 },
    #[error("all {batches} batches are in flight, or have results that were not taken: take results")]
    Busy { batches: usize },
    #[error("{reads} pages, and a batch holds {most}: read them by several calls, or raise max_batch")]
    TooManyReads { reads: usize, most: usize },
    #[error("{in_flight} slots of region {region} are in flight: wait for their results")]
    RegionBusy { region: u32, in_flight: usize },
    #[error("READs may still write: keep the reader's memory, and that of its slots, until the process ends")]
    StillReading,
    #[error("no request that was taken has number {taking}, or it is over")]
    Taking { taking: u64 },
    #[error("the publisher has no pool {pool}")]
    NoPool { pool: u32 },
    #[error("slot {slot} of pool {pool} has not been begun: begin it first")]
    NotBegun { pool: u32, slot: u32 },
    #[error("the page in slot {slot} of pool {pool} grows already")]
    Grows { pool: u32, slot: u32 },
    #[error("the system refused a file descriptor: {0}")]
    Descriptor(std::io::Error),
    #[error("no space {space}: kvrail_node_space gives the numbers of a node's spaces")]
    Space { space: u32 },
    #[error("no registered memory {places}: it never was, or was released")]
    Places { places: u32 },
    #[error(
        "place {index} of registered memory {places} is not there, or not free: a get or a put uses it, or hardware \
         may still write into it"
    )]
    PlaceBusy { places: u32, index: u32 },
    #[error("the memory is for pages of {of}, and the space has pages of {space}")]
    SpaceLayout { of: String, space: String },
    #[error("the node has no pool of its own for pages of {layout}: give it one")]
    NoOwnPool { layout: String },
    #[error("get {ticket} is under way: ask again, or wait longer")]
    Underway { ticket: u64 },
    #[error("no get that was begun has ticket {ticket}, or its results were taken")]
    Ticket { ticket: u64 },
    #[error("{0:?} names no directory: give none, embedded, embedded:host:port,host:port or redis://host")]
    Directory(String),
    #[error("another thread is storing the page")]
    PutUnderway,
    /// One key of a batch is refused, for the reason that follows.
    #[error("key {index}: {source}")]
    OfKey { index: usize, r#source: Box<CapiError> },
    #[error(transparent)]
    Put(#[from] kvrail_node::PutError),
    #[error(transparent)]
    EngineSlot(#[from] kvrail_node::EngineSlotError),
    #[error(transparent)]
    PageKey(#[from] kvrail_node::PageKeyError),
    /// One page of a batch cannot be read.
    #[error("read {index}: {source}")]
    OfRead { index: usize, r#source: Box<CapiError> },
    /// One page of a batch of ranges cannot be read.
    #[error("page {page} of range {range}: {source}")]
    OfPage { range: usize, page: usize, r#source: Box<CapiError> },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Flight(#[from] FlightError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Range(#[from] PageRangeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    OpenHandover(#[from] OpenHandoverError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    TakeRequest(#[from] TakeRequestError),
    /// An error of set-up, with its code.
    #[error("{text}")]
    Other { code: u32, text: String },
}

impl CapiError {
    /// A number that never changes its meaning (docs/errors.md).
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Null { .. } => 8000,
            Self::StructBytes { .. } => 8001,
            Self::NewerStruct { .. } => 8002,
            Self::Text { .. } => 8003,
            Self::Value { .. } => 8004,
            Self::Handle { .. } => 8005,
            Self::InUse => 8006,
            Self::Panic(_) => 8007,
            Self::Poisoned => 8008,
            Self::Buffer { .. } => 8009,
            Self::Transport { .. } => 8010,
            Self::NotBuilt(_) => 8011,
            Self::Memory { .. } => 8012,
            Self::Maxima { .. } => 8013,
            Self::Key(_) => 8014,
            Self::LayoutName(_) => 8015,
            Self::LayoutLimit { .. } => 8016,
            Self::Alignment { .. } => 8017,
            Self::OtherProcess { .. } => 8018,
            Self::Peer { .. } => 8020,
            Self::Region { .. } => 8021,
            Self::Slot { .. } => 8022,
            Self::SlotInFlight { .. } => 8023,
            Self::Pool { .. } => 8024,
            Self::Plan { .. } => 8025,
            Self::Busy { .. } => 8026,
            Self::TooManyReads { .. } => 8027,
            Self::RegionBusy { .. } => 8028,
            Self::StillReading => 8029,
            Self::Taking { .. } => 8030,
            Self::NoPool { .. } => 8040,
            Self::NotBegun { .. } => 8041,
            Self::Grows { .. } => 8042,
            Self::Descriptor(_) => 8043,
            Self::Space { .. } => 8050,
            Self::Places { .. } => 8051,
            Self::PlaceBusy { .. } => 8052,
            Self::SpaceLayout { .. } => 8053,
            Self::NoOwnPool { .. } => 8054,
            Self::Underway { .. } => 8055,
            Self::Ticket { .. } => 8056,
            Self::Directory(_) => 8057,
            Self::PutUnderway => 8058,
            Self::OfKey { source, .. } | Self::OfRead { source, .. } | Self::OfPage { source, .. } => {
                source.code()
            }
            Self::Put(source) => source.code(),
            Self::EngineSlot(source) => source.code(),
            Self::PageKey(source) => source.code(),
            Self::Read(source) => source.code(),
            Self::Submit(source) => source.code(),
            Self::Flight(source) => source.code(),
            Self::Block(source) => source.code(),
            Self::Range(source) => source.code(),
            Self::Write(source) => source.code(),
            Self::Page(source) => source.code(),
            Self::OpenHandover(source) => source.code(),
            Self::Handover(source) => source.code(),
            Self::TakeRequest(source) => source.code(),
            Self::Other { code, .. } => *code,
        }
    }
}

/// Errors of set-up become their code and text.
macro_rules! of_set_up {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CapiError {
            fn from(error: $error) -> Self {
                Self::Other { code: error.code(), text: error.to_string() }
            }
        })*
    };
}
of_set_up!(
    engine::StartError,
    engine::ConnectError,
    engine::PublisherError,
    engine::WithdrawError,
    engine::TableError,
    engine::PageLayoutError,
    engine::core::memory::RegionError,
    engine::core::plan::AddPlanError,
    engine::core::plan::ForgetPlanError,
    engine::layouts::PlacementError,
    engine::layouts::PlanError,
    engine::layouts::SelectionError,
    engine::layouts::OffsetError,
    engine::layouts::DeclarationError,
    engine::layouts::DeclarationErrors,
    engine::session::KeyError,
    engine::session::NameError,
    engine::session::ParseAddressError,
    kvrail_local::LocalStartError,
    kvrail_node::NodeError,
    kvrail_node::RegisterMemoryError,
    kvrail_node::AnnounceError,
);
#[cfg(feature = "redis")]
of_set_up!(kvrail_node::directory::redis::RedisConfigError);
#[cfg(feature = "verbs")]
of_set_up!(engine::verbs::VerbsStartError);
