//! How long a memory region may be, and whether it is as long as was asked for.

use std::time::Duration;

use kvrail_core::provider::MemoryRange;

use crate::error::MrError;

/// The bytes of the pages of the host that have bytes of `range`. The kernel pins whole pages, and
/// pages of 2 MiB or 1 GiB by pages of the usual size, so `page` is the usual one.
fn pinned(range: MemoryRange, page: u64) -> u128 {
    let end = u128::from(range.addr) + u128::from(range.len);
    let page = u128::from(page);
    end.next_multiple_of(page) - u128::from(range.addr) / page * page
}

/// Checks that a region of `device` can have `range`, before anything is pinned.
///
/// # Errors
///
/// Its pages have more than `limit` bytes.
pub(super) fn check(device: &str, range: MemoryRange, limit: u64) -> Result<(), MrError> {
    let MemoryRange { addr, len } = range;
    // Without a limit, a range that wraps around is the kernel's to refuse.
    if limit == u64::MAX || pinned(range, rustix::param::page_size() as u64) <= u128::from(limit) {
        return Ok(());
    }
    Err(MrError::TooLong { device: device.into(), addr, len, limit })
}

/// Checks that a region which was made for `range` has all of it.
///
/// # Errors
///
/// It is shorter: a READ of its end would fail, and nothing would say so before.
pub(super) fn compare(device: &str, range: MemoryRange, registered: u64) -> Result<(), MrError> {
    let MemoryRange { addr, len } = range;
    if registered >= len {
        return Ok(());
    }
    Err(MrError::Shortened { device: device.into(), addr, len, registered })
}

/// Gigabytes per second, to be read by people.
pub(super) fn rate(bytes: u64, took: Duration) -> String {
    // A whole number of bytes is exact up to 2^53; a time is not zero where bytes were registered.
    format!("{:.1}", bytes as f64 / 1e9 / took.as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(addr: u64, len: u64) -> MemoryRange {
        MemoryRange { addr, len }
    }

    #[test]
    fn whole_pages_of_the_host_count() {
        assert_eq!(pinned(range(0x1000, 0x1000), 0x1000), 0x1000);
        assert_eq!(pinned(range(0x1fff, 2), 0x1000), 0x2000);
        assert_eq!(pinned(range(0x1001, 0x1000), 0x1000), 0x2000);
        let most = pinned(range(u64::MAX, u64::MAX), 0x1_0000);
        assert_eq!(most, (1 << 64) + 0x1_0000, "without overflow");
    }

    #[test]
    fn a_range_above_the_limit_is_refused_before_it_is_pinned() {
        let page = rustix::param::page_size() as u64;
        let limit = 4 * page;
        assert_eq!(check("mlx5_0", range(page, limit), limit), Ok(()));
        assert_eq!(check("mlx5_0", range(u64::MAX, u64::MAX), u64::MAX), Ok(()));
        for (addr, len) in [(page, limit + 1), (page + 1, limit), (1 << 40, 1 << 50)] {
            let error = check("mlx5_0", range(addr, len), limit).unwrap_err();
            assert_eq!(error, MrError::TooLong { device: "mlx5_0".into(), addr, len, limit });
            assert_eq!((error.code(), error.errno()), (5043, libc::EMSGSIZE));
            let text = error.to_string();
            assert!(text.contains(&limit.to_string()) && text.contains("in parts"), "{text}");
        }
        // The kernel refuses an empty range.
        assert_eq!(check("mlx5_0", range(page, 0), limit), Ok(()));
    }

    #[test]
    fn a_region_that_the_device_shortened_is_refused() {
        assert_eq!(compare("mlx5_0", range(4096, 1 << 33), 1 << 33), Ok(()));
        let error = compare("mlx5_0", range(4096, 1 << 33), 1 << 32).unwrap_err();
        let (device, addr, len, registered) = ("mlx5_0".into(), 4096, 1 << 33, 1 << 32);
        assert_eq!(error, MrError::Shortened { device, addr, len, registered });
        assert_eq!(error.code(), 5044);
        assert!(error.to_string().starts_with("mlx5_0 registered 4294967296 of 8589934592 bytes"), "{error}");
    }

    #[test]
    fn a_rate_is_of_whole_gigabytes() {
        assert_eq!(rate(10_000_000_000, Duration::from_secs(4)), "2.5");
        assert!(rate(1, Duration::ZERO).parse::<f64>().is_ok());
    }
}
