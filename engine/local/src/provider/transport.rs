//! What carries out a lane's READs.
#![allow(unsafe_code, reason = "an unsafe trait: its implementations write to registered memory")]

use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;

/// Carries out the READs of one lane.
///
/// # Safety
///
/// [`execute`](Self::execute) writes to nothing but `local_addr .. local_addr + len` of its READ,
/// and writes nothing after it has returned. An address that [`plain_copy`](Self::plain_copy)
/// returns is valid as its docs say, and no registered local memory overlaps what is read there.
pub unsafe trait LaneTransport: Send + 'static {
    /// The transport's name in logs and reports.
    const LABEL: &'static str;

    /// Whether [`plain_copy`](Self::plain_copy) ever gives an address.
    const COPIES: bool = false;

    /// A handle by which another thread interrupts a READ.
    type Interrupt: Send + 'static;

    /// A handle for [`interrupt`](Self::interrupt).
    fn interrupt_handle(&self) -> Self::Interrupt;

    /// Makes a READ that blocks, now or later, fail soon. Does not block.
    fn interrupt(handle: &Self::Interrupt);

    /// Where the bytes of `read` are, if carrying it out now is a copy within this process's
    /// memory, which neither blocks nor enters the kernel. Then another thread may copy them.
    ///
    /// The address is valid for reads of `read.len` bytes, to which another process may write
    /// meanwhile, until the next call of [`execute`](Self::execute) or the end of the transport.
    fn plain_copy(&self, read: &Read) -> Option<*const u8> {
        let _ = read;
        None
    }

    /// The status of a READ whose bytes have been copied from the address that
    /// [`plain_copy`](Self::plain_copy) gave.
    fn copied(&self, read: &Read) -> WcStatus {
        let _ = read;
        WcStatus::SUCCESS
    }

    /// Carries out one READ and returns its status. Blocks for a bounded time.
    ///
    /// # Safety
    ///
    /// `read.local_addr .. read.local_addr + read.len` is valid for writes until the call returns.
    unsafe fn execute(&mut self, read: &Read) -> WcStatus;
}
