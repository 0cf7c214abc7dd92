//! The times by which a side knows that its peer lives.

use std::time::Duration;

/// How long a peer may send nothing while a message from it is due.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How often a side of a session sends a message, `Alive` if it has nothing else to say.
pub const BEAT: Duration = Duration::from_secs(2);
/// How long a session may go without a message from the peer before the peer counts as gone: longer
/// than three [`BEAT`]s. That the connection is open proves nothing: a child of a fork may keep it
/// open after the peer's process has died.
pub const LULL: Duration = Duration::from_secs(8);
/// The longest time that a limit of a session may name. A longer one counts as this, so that the
/// clock can hold every time that is made of it.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the side that ends a connection keeps it open so that the peer can read the reason.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
