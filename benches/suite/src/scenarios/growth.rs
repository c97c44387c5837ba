//! What one change costs as the mesh grows by what it does not concern.

use anyhow::{Context, Result};

use super::Setting;
use crate::{
    instructions,
    report::{Figure, Target},
};

/// Counts instructions, so that a busy machine does not show.
pub fn run(_: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let counts = instructions::count()?;
    let of =
        |path: &str| counts.get(path).map(|n| *n as f64).with_context(|| format!("{path} was not counted"));
    let (small, large) = ("endpoint_flips", "endpoint_flips_in_10x_mesh");
    let figure =
        Figure::new(scenario, "an endpoint flips in a mesh of 10x, beside 1x", of(large)?, "instructions");
    Ok(vec![figure.beside(of(small)?).target(Target::Floors(1.1))])
}
