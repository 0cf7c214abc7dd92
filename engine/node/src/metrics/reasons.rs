//! Why a page was not served.

use kvrail_core::error::PageError;
use kvrail_core::table::Miss;

use crate::miss::GetMiss;

macro_rules! reasons {
    ($($variant:ident $name:literal $help:literal,)*) => {
        /// Why a page that was asked for was not served: the label `reason` of `kvrail_misses`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum MissReason {
            $(#[doc = $help] $variant,)*
        }

        impl MissReason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    NoOwner "no_owner" "No owner of the page is known.",
    NotStored "not_stored" "The own pools do not have the page, and the node has no directory.",
    Directory "directory" "The directory, or the part with the key, did not answer.",
    Unreachable "unreachable" "The owner was not reached, or it refused the session.",
    OwnerLost "owner_lost" "The owner was lost while the page was read.",
    Restarted "restarted" "Another owner is at the address by now.",
    Overwriting "overwriting" "The owner was overwriting the slot.",
    Generation "generation" "The slot holds another page by now, or was never published in this generation.",
    Key "key" "The slot holds the page of another key.",
    NotReady "not_ready" "Fewer parts of the page are ready than the record says.",
    NoPool "no_pool" "The owner has no such pool that this node can read.",
    NoSlot "no_slot" "The record names a slot that the pool does not have.",
    Layout "layout" "The owner's pages have another layout than the destination.",
    Deadline "deadline" "The deadline passed before the page had arrived and was found to be right.",
    Fault "fault" "READs of the page failed in a way that another path does not change.",
    SetAside "set_aside" "READs of the page have failed before, and it is not read for a while.",
    NoLane "no_lane" "No lane to the owner was there before the deadline.",
    PoolGone "pool_gone" "The owner has taken the pool back.",
    Withdrawn "withdrawn" "The caller withdrew the request.",
    Group "group" "Another page of the same group is a miss.",
    Busy "busy" "Too many requests were waiting already.",
    Destination "destination" "The destination cannot be read into.",
    Stopped "stopped" "The node is stopping.",
    Other "other" "Another reason, for which this release has no name.",
}

/// How many reasons there are.
pub(crate) const REASONS: usize = MissReason::ALL.len();

impl From<&GetMiss> for MissReason {
    fn from(miss: &GetMiss) -> Self {
        match miss {
            GetMiss::NoOwner => Self::NoOwner,
            GetMiss::NotStored => Self::NotStored,
            GetMiss::Directory(_) => Self::Directory,
            GetMiss::Unreachable { .. } => Self::Unreachable,
            GetMiss::OwnerLost { .. } => Self::OwnerLost,
            GetMiss::Restarted { .. } => Self::Restarted,
            GetMiss::Stale(stale) => Self::of(&PageError::Miss(*stale)),
            GetMiss::NoPool { .. } => Self::NoPool,
            GetMiss::NoSlot { .. } => Self::NoSlot,
            GetMiss::Layout { .. } => Self::Layout,
            GetMiss::Deadline => Self::Deadline,
            GetMiss::Read(error) => Self::of(error),
            GetMiss::Group => Self::Group,
            GetMiss::Busy { .. } => Self::Busy,
            GetMiss::Destination => Self::Destination,
            GetMiss::Stopped => Self::Stopped,
        }
    }
}

impl MissReason {
    pub(crate) const fn place(self) -> usize {
        self as usize
    }

    /// The reason that an error of the read engine is.
    #[must_use]
    pub const fn of(error: &PageError) -> Self {
        match error {
            PageError::Miss(Miss::Overwriting { .. }) => Self::Overwriting,
            PageError::Miss(Miss::Generation { .. }) => Self::Generation,
            PageError::Miss(Miss::Key { .. }) => Self::Key,
            PageError::Miss(Miss::NotReady { .. }) => Self::NotReady,
            PageError::Fault { .. } => Self::Fault,
            PageError::Deadline { .. } => Self::Deadline,
            PageError::NoLane { .. } => Self::NoLane,
            PageError::PeerGone => Self::OwnerLost,
            PageError::PoolGone => Self::PoolGone,
            PageError::Withdrawn => Self::Withdrawn,
            PageError::SetAside { .. } => Self::SetAside,
            _ => Self::Other,
        }
    }
}
