//! Which host pages a range of device memory touches, and where within them the range begins.

/// The whole host pages that hold a range.
///
/// CUDA exports whole host pages only, and `ibv_reg_dmabuf_mr` requires `offset` and `iova` at the
/// same place within a page. With the address itself as `iova`, the window's offset is at that
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Where the first page begins.
    pub(super) start: u64,
    /// Its length in bytes: a multiple of the page.
    pub(super) len: u64,
    /// Where in the window the range begins: less than a page.
    pub(super) offset: u64,
}

impl Window {
    /// The pages of `page` bytes (a power of two) around `len` bytes at `addr`, or `None` for an
    /// empty range and for one that reaches beyond the address space.
    pub(super) fn around(addr: u64, len: u64, page: u64) -> Option<Self> {
        debug_assert!(page.is_power_of_two());
        let end = addr.checked_add(len).filter(|_| len > 0)?;
        let start = addr & !(page - 1);
        let end = end.checked_add(page - 1)? & !(page - 1);
        Some(Self { start, len: end - start, offset: addr - start })
    }
}

/// Whether `ibv_reg_dmabuf_mr` can map `iova` to `offset`: both lie at the same place within a
/// page.
pub(super) const fn congruent(iova: u64, offset: u64, page: u64) -> bool {
    (iova ^ offset) & (page - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_pages_that_are_touched_and_no_more() {
        let window = |addr, len| {
            let w = Window::around(addr, len, 4096).unwrap();
            (w.start, w.len, w.offset)
        };
        assert_eq!(window(0x20_0000, 4096), (0x20_0000, 4096, 0));
        assert_eq!(window(0x20_0000, 4097), (0x20_0000, 8192, 0));
        assert_eq!(window(0x20_0200, 4096), (0x20_0000, 8192, 0x200));
        assert_eq!(window(0x20_0FFF, 1), (0x20_0000, 4096, 0xFFF));
        assert_eq!(window(0x20_0FFF, 2), (0x20_0000, 8192, 0xFFF));
        assert_eq!(window(0, 1), (0, 4096, 0));
        let big = Window::around(0x7F00_0001_0400, 80 << 30, 65_536).unwrap();
        assert_eq!((big.start, big.offset, big.len % 65_536), (0x7F00_0001_0000, 0x400, 0));
    }

    #[test]
    fn every_window_holds_its_range_and_keeps_its_place_in_the_page() {
        for page in [4096, 16_384, 65_536] {
            for addr in (0x10_0000_u64..0x10_0000 + 2 * page).step_by(509) {
                for len in [1, 511, page - 1, page, page + 1, 5 * page + 7] {
                    let w = Window::around(addr, len, page).unwrap();
                    assert!(w.start.is_multiple_of(page) && w.len.is_multiple_of(page), "{w:?}");
                    assert!(w.start <= addr && addr + len <= w.start + w.len, "{w:?}");
                    assert!(w.len < len + 2 * page, "{w:?}: a page that is not touched");
                    assert!(w.start + w.offset == addr && congruent(addr, w.offset, page), "{w:?}");
                }
            }
        }
    }

    #[test]
    fn an_empty_range_and_one_beyond_the_address_space_have_no_window() {
        assert_eq!(Window::around(0x1000, 0, 4096), None);
        assert_eq!(Window::around(u64::MAX, 2, 4096), None, "beyond the address space");
        assert_eq!(Window::around(u64::MAX - 4094, 4094, 4096), None, "its last page's end is");
        assert!(Window::around(u64::MAX - 8191, 4096, 4096).is_some());
    }

    #[test]
    fn an_address_and_an_offset_are_congruent_if_their_place_in_a_page_is_equal() {
        assert!(congruent(0x7F00_0000_1234, 0x234, 4096));
        assert!(congruent(0x7F00_0000_1234, 0x5_0234, 4096));
        assert!(!congruent(0x7F00_0000_1234, 0x235, 4096));
        assert!(!congruent(0x7F00_0000_1234, 0x234, 65_536), "pages of another size");
    }
}
