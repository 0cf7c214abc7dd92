//! How the provider posts, tested without a device: [`SendWrEncoder`](crate::SendWrEncoder) against
//! a stand-in for the driver, and an encoder that records.

mod recording;
mod send_wr;
