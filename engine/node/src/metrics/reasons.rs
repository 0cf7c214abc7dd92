//! Why a page was not served.

use kvrail_core::error::PageError;
use kvrail_core::table::Miss;

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
    Unknown "unknown" "No owner of the page is known.",
    DirectoryUnanswered "directory_unanswered" "The directory, or the part with the key, could not be asked.",
    DirectoryDeadline "directory_deadline" "The directory did not answer in time.",
    OwnerUnknown "owner_unknown" "A record names an owner that the directory does not know: its lease has run out.",
    OwnerUnreachable "owner_unreachable" "No session with the owner: it is not reached, or it refused.",
    Layout "layout" "The owner offers no pool with the layout of the page.",
    Overwriting "overwriting" "The owner was overwriting the slot.",
    Generation "generation" "The slot holds another page by now, or was never published in this generation.",
    Key "key" "The slot holds the page of another key.",
    NotReady "not_ready" "Fewer parts of the page are ready than the record says.",
    Fault "fault" "READs of the page failed in a way that another path does not change.",
    SetAside "set_aside" "READs of the page have failed before, and it is not read for a while.",
    NoLane "no_lane" "No lane to the owner was there before the deadline.",
    PeerGone "peer_gone" "The owner went away while the page was read.",
    PoolGone "pool_gone" "The owner has taken the pool back.",
    Deadline "deadline" "The page had not arrived, or was not validated, before the deadline.",
    Withdrawn "withdrawn" "The caller withdrew the request.",
    NoSlot "no_slot" "No free slot was there to read the page into.",
    Overloaded "overloaded" "Too many requests were waiting already.",
    Other "other" "Another reason, which this release has no name for.",
}

/// How many reasons there are.
pub(crate) const REASONS: usize = MissReason::ALL.len();

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
            PageError::PeerGone => Self::PeerGone,
            PageError::PoolGone => Self::PoolGone,
            PageError::Withdrawn => Self::Withdrawn,
            PageError::SetAside { .. } => Self::SetAside,
            _ => Self::Other,
        }
    }
}
