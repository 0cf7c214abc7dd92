//! engine/core
