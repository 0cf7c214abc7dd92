//! What carries out a lane's READs.
#![allow(unsafe_code, reason = "an unsafe trait: its implementations write to registered memory")]

use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;

/// Carries out the READs of one lane.
///
/// # Safety
///
/// [`execute`](Self::execute) writes to nothing but `local_addr .. local_addr + len` of its READ,
/// and writes nothing after it has returned.
pub unsafe trait LaneTransport: Send + 'static {
    /// The transport's name in logs and reports.
    const LABEL: &'static str;

    /// A handle by which another thread interrupts a READ.
    type Interrupt: Send + 'static;

    /// A handle for [`interrupt`](Self::interrupt).
    fn interrupt_handle(&self) -> Self::Interrupt;

    /// Makes a READ that blocks, now or later, fail soon. Does not block.
    fn interrupt(handle: &Self::Interrupt);

    /// Whether carrying out `read` now is a copy within this process's memory, which neither blocks
    /// nor enters the kernel. Then the posting thread may do it.
    fn is_plain_copy(&self, read: &Read) -> bool {
        let _ = read;
        false
    }

    /// Carries out one READ and returns its status. Blocks for a bounded time.
    ///
    /// # Safety
    ///
    /// `read.local_addr .. read.local_addr + read.len` is valid for writes until the call returns.
    unsafe fn execute(&mut self, read: &Read) -> WcStatus;
}
