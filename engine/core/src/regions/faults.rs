//! What is held against a region of a peer.
//!
//! A READ that fails kills its lane and all that the lane carries, so pages that fail must not be
//! read again and again. Some pages of a region are remembered one by one; when too many fail, the
//! region is set aside as a whole. Neither is for ever: memory may be mended, and the verdict may
//! have been wrong.

use heapless::HistoryBuf;

use crate::error::PageError;
use crate::time::{Nanos, Time};
use crate::verbs_abi::WcStatus;

/// Pages of one region that are remembered: by default a region is set aside before there are more.
const PAGES: usize = 4;

/// A suspicion, in strikes: a wr has killed a lane, which may be the lane's own fault.
pub(crate) const SUSPECTED: u16 = 1;
/// A page that is found guilty without a suspicion before.
pub(crate) const GUILTY: u16 = 2;

/// Memory of a peer that is not read before `until`.
#[derive(Clone, Copy, Debug)]
struct Bad {
    addr: u64,
    len: u32,
    until: Time,
}

impl Bad {
    fn overlaps(&self, addr: u64, len: u32) -> bool {
        addr < self.addr.saturating_add(self.len.into()) && self.addr < addr.saturating_add(len.into())
    }
}

/// What is held against a region.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// What is not read for a while; the oldest is forgotten first.
    pages: HistoryBuf<Bad, PAGES>,
    /// What has killed a lane once.
    suspected: HistoryBuf<Bad, PAGES>,
    strikes: u16,
    /// Of the last strike: when it was, what was said, and of which address.
    last: Time,
    status: WcStatus,
    addr: u64,
    /// None of it is read before.
    aside: Time,
}

/// How long and how much is held against a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Pages that may be found guilty before the region is set aside.
    pub(crate) pages: u16,
    /// For how long.
    pub(crate) time: Nanos,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        pages: HistoryBuf::new(),
        suspected: HistoryBuf::new(),
        strikes: 0,
        last: Time::ZERO,
        status: WcStatus::SUCCESS,
        addr: 0,
        aside: Time::ZERO,
    };

    /// A wr at `addr` has failed. Says whether the region is set aside for it.
    pub(crate) fn strike(
        &mut self,
        weight: u16,
        (status, addr): (WcStatus, u64),
        now: Time,
        patience: Patience,
    ) -> bool {
        if now.since(self.last) >= patience.time {
            self.strikes = 0;
        }
        self.strikes = self.strikes.saturating_add(weight);
        (self.last, self.status, self.addr) = (now, status, addr);
        let aside = self.strikes >= GUILTY.saturating_mul(patience.pages);
        if aside {
            self.aside = now + patience.time;
        }
        aside
    }

    /// A wr of `len` bytes at `addr` has killed a lane. Says whether another one that overlaps it
    /// has done so before; this one is remembered until `until`.
    pub(crate) fn suspect(&mut self, addr: u64, len: u32, now: Time, until: Time) -> bool {
        if self.suspected.iter().any(|bad| now < bad.until && bad.overlaps(addr, len)) {
            return true;
        }
        self.suspected.write(Bad { addr, len, until });
        false
    }

    /// `len` bytes at `addr` are not to be read before `until`.
    pub(crate) fn remember(&mut self, addr: u64, len: u32, until: Time) {
        self.pages.write(Bad { addr, len, until });
    }

    /// Whether all of it may be read now.
    pub(crate) fn are_over(&self, now: Time) -> bool {
        now >= self.aside && self.pages.iter().all(|bad| now >= bad.until)
    }

    /// Why `len` bytes at `addr` are not read now, if they are not.
    pub(crate) fn forbid(&self, addr: u64, len: u32, now: Time) -> Option<PageError> {
        let Self { status, addr: remote_addr, aside, .. } = *self;
        if now < aside {
            return Some(PageError::SetAside { remote_addr, status, whole_region: true, until: aside });
        }
        let mut held = self.pages.iter().filter(|bad| now < bad.until);
        let bad = held.find(|bad| bad.overlaps(addr, len))?;
        Some(PageError::SetAside { remote_addr: bad.addr, status, whole_region: false, until: bad.until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { pages: 3, time: Nanos::from_secs(30) };
    const WHAT: (WcStatus, u64) = (WcStatus::REM_OP_ERR, 0x1000);

    #[test]
    fn three_guilty_pages_or_six_suspicions_set_a_region_aside_for_a_while() {
        for (weight, times) in [(GUILTY, 3), (SUSPECTED, 6)] {
            let mut faults = Faults::NONE;
            for i in 1..times {
                assert!(!faults.strike(weight, WHAT, Time(i), PATIENCE));
            }
            assert!(faults.are_over(Time(times)));
            assert!(faults.strike(weight, WHAT, Time(times), PATIENCE));
            let until = Time(times) + PATIENCE.time;
            let error = faults.forbid(0x9999, 1, Time(times + 1)).unwrap();
            assert!(matches!(error, PageError::SetAside { whole_region: true, until: u, .. } if u == until));
            assert!(!faults.are_over(Time(until.0 - 1)) && faults.are_over(until));
            assert_eq!(faults.forbid(0x9999, 1, until), None);
            assert!(!faults.strike(weight, WHAT, until, PATIENCE), "it begins anew");
        }
    }

    #[test]
    fn what_has_killed_a_lane_before_is_known_again_for_a_while() {
        let mut faults = Faults::NONE;
        assert!(!faults.suspect(0x1000, 0x100, Time(1), Time(50)));
        assert!(!faults.suspect(0x1100, 0x100, Time(2), Time(50)), "its neighbour");
        assert!(faults.suspect(0x10FF, 1, Time(49), Time(99)));
        assert!(!faults.suspect(0x1000, 0x100, Time(50), Time(99)), "that was long ago");
    }

    #[test]
    fn a_page_is_remembered_by_its_bytes() {
        let mut faults = Faults::NONE;
        faults.remember(0x1000, 0x100, Time(50));
        for (addr, len, held) in
            [(0xF00, 0x100, false), (0xF01, 0x100, true), (0x10FF, 1, true), (0x1100, 9, false)]
        {
            assert_eq!(faults.forbid(addr, len, Time(49)).is_some(), held, "{addr:#x}");
            assert_eq!(faults.forbid(addr, len, Time(50)), None);
        }
        (0..PAGES as u64).for_each(|i| faults.remember(0x2000 + i, 1, Time(50)));
        assert_eq!(faults.forbid(0x1000, 1, Time(1)), None, "the oldest is forgotten first");
    }
}
