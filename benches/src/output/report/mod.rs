//! What `report` makes of the reports of earlier runs: Markdown, charts, a page, a comparison.

pub(crate) mod bars;
pub(crate) mod canvas;
pub(crate) mod charts;
pub(crate) mod compare;
pub(crate) mod html;
pub(crate) mod lines;
pub(crate) mod markdown;
pub(crate) mod rows;
