//! What all pages of a segment have in common.

use bitflags::bitflags;

use crate::lane::record::Run;

bitflags! {
    /// Facts about a segment, in its first page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Segment: u8 {
        /// Its pages are one chunk each, of one length, and of one region on each side.
        const UNIFORM = 1;
        /// It is in the list of those put aside.
        const PARKED = 2;
        /// None of its pages is to be validated.
        const NO_VALIDATION = 4;
        /// All of its pages are to be validated.
        const NEEDS_VALIDATION = 8;
    }
}

impl Segment {
    /// Its pages have to be looked at one by one.
    pub(crate) const PER_PAGE: Self = Self::empty();

    #[inline]
    pub(crate) const fn is_uniform(self) -> bool {
        self.contains(Self::UNIFORM)
    }

    /// What a run of its pages is, where it is uniform.
    #[inline]
    pub(crate) fn run(self) -> Run {
        if self.contains(Self::NO_VALIDATION) {
            Run::NoValidation
        } else if self.contains(Self::NEEDS_VALIDATION) {
            Run::NeedsValidation
        } else {
            Run::PerPage
        }
    }

    /// Makes it a segment whose pages have to be looked at one by one: some have failed.
    pub(crate) fn make_per_page(&mut self) {
        *self &= Self::PARKED;
    }

    /// Notes that it is in the list of those put aside.
    pub(crate) fn park(&mut self) {
        *self |= Self::PARKED;
    }

    /// Notes that it no longer is in that list, and says whether it was.
    pub(crate) fn unpark(&mut self) -> bool {
        let was = self.contains(Self::PARKED);
        *self -= Self::PARKED;
        was
    }
}
