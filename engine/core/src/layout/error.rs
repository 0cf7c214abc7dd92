//! Why a layout is not set.

/// Why the layout of a region cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetLayoutError {
    /// The layout belongs to another engine than the region.
    #[error("layout and region belong to different engines: add the layout to the region's engine")]
    OtherEngine,
    /// Pages of the layout have several regions, and this is one.
    #[error(
        "pages of the layout have several regions, and this is one: register slots by register_regions, and add a peer's regions by add_pool"
    )]
    SeveralRegions,
    /// The region has another layout already.
    #[error(
        "the region has another layout already, and a region has only one: register another region for this layout"
    )]
    Another,
    /// Slots have been given out, and these would keep having no layout.
    #[error("{given} slots have been given out already: set the layout before you take the first slot")]
    Given {
        /// How many slots.
        given: usize,
    },
}

impl SetLayoutError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::OtherEngine => 2130,
            Self::Another => 2131,
            Self::Given { .. } => 2132,
            Self::SeveralRegions => 2133,
        }
    }
}
