//! What all pages of a segment have in common.
//!
//! A segment is a run of consecutive pages of a batch that are read from one peer. Its facts stand
//! in its first page.

use bitflags::bitflags;

use crate::lane::record::Run;

bitflags! {
    /// The facts about a segment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Segment: u8 {
        /// Its pages are one chunk each, of one length, and of one region on each side.
        const UNIFORM = 1;
        /// The segment is in the list of those that cannot make their deadline and were put aside.
        const PARKED = 2;
        /// None of its pages is to be validated.
        const NO_VALIDATION = 4;
        /// All of its pages are to be validated.
        const NEEDS_VALIDATION = 8;
        /// Its pages are whole pages of one pool with several regions, and land in slots of one
        /// local region.
        const ALIKE = 16;
    }
}

impl Segment {
    /// Its pages have to be looked at one by one.
    pub(crate) const PER_PAGE: Self = Self::empty();

    #[inline]
    pub(crate) const fn is_uniform(self) -> bool {
        self.contains(Self::UNIFORM)
    }

    #[inline]
    pub(crate) const fn is_alike(self) -> bool {
        self.contains(Self::ALIKE)
    }

    /// The kind of run that pages of several regions make.
    #[inline]
    pub(crate) const fn run_of_pairs(self) -> Run {
        if self.contains(Self::NEEDS_VALIDATION) { Run::Pairs } else { Run::PerPage }
    }

    /// The kind of run that pages of a uniform segment make.
    #[inline]
    pub(crate) const fn run(self) -> Run {
        if !self.is_uniform() {
            Run::PerPage
        } else if self.contains(Self::NO_VALIDATION) {
            Run::NoValidation
        } else if self.contains(Self::NEEDS_VALIDATION) {
            Run::NeedsValidation
        } else {
            Run::PerPage
        }
    }

    /// Notes that the pages have to be looked at one by one, since some have failed.
    pub(crate) fn make_per_page(&mut self) {
        *self &= Self::PARKED;
    }

    /// Whether the segment was put aside.
    pub(crate) const fn is_parked(self) -> bool {
        self.contains(Self::PARKED)
    }

    /// Notes that the segment was put aside.
    pub(crate) fn park(&mut self) {
        *self |= Self::PARKED;
    }

    /// Notes that the segment is not put aside any more, and returns whether it was.
    pub(crate) fn unpark(&mut self) -> bool {
        let was = self.contains(Self::PARKED);
        *self -= Self::PARKED;
        was
    }
}
