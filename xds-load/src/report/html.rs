//! The report as a page of its own: no other file and no network is needed to read it.

use super::Report;
use crate::run::Outcome;

/// The page.
pub fn html(report: &Report, _outcome: &Outcome) -> String {
    format!("<!doctype html><meta charset=utf-8><title>xds-load</title><pre>{report}</pre>")
}
