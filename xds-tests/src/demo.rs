//! The demo: five things go wrong in a mesh of two clouds under a steady load, and its caller notices none of them.
//!
//! ```text
//! story (what happens, and when) -> record (what was seen) -> report (JSON), page (HTML)
//!                          view (the terminal, while it happens)
//! ```

pub mod page;
pub mod report;
pub mod story;
pub mod view;
