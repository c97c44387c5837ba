//! Criterion's benches. Each has groups in which `landbridge` stands beside a `floor_…`, for one or several parameters. And one
//! that counts bytes as well, and says itself what it found.

use anyhow::{Context, Result};

use super::Setting;
use crate::{
    cargo_bench::{self, Medians},
    report::{Figure, Target},
};

/// What the figures should be: by `group/parameter`, in nanoseconds or as a multiple of the floor.
const TARGETS: &[(&str, Target)] = &[
    // By endpoints and services: 40 ns for each endpoint.
    ("encode_eds/1x100", Target::AtMost(100.0 * 40.0)),
    ("encode_eds/10x10", Target::AtMost(100.0 * 40.0)),
    ("encode_eds/100x10", Target::AtMost(1_000.0 * 40.0)),
    ("encode_eds/1000x1", Target::AtMost(1_000.0 * 40.0)),
    ("encode_eds/10000x1", Target::AtMost(10_000.0 * 40.0)),
    ("one_endpoint/1000 index", Target::AtMost(3_000.0)),
    // A tenth of what istiod takes (A5).
    ("builders/http_clusters_105", Target::AtMost(331_200.0)),
    ("builders/automatic_listeners_103", Target::AtMost(264_200.0)),
    ("builders/route_table_100", Target::AtMost(95_500.0)),
    ("builders/gateway_clusters_1000", Target::AtMost(2_060_000.0)),
    ("builders/gateway_listener_1000", Target::AtMost(2_440_000.0)),
    ("builders/route_table_1000", Target::AtMost(4_690_000.0)),
    // 9,500 and 22,000 in a second of a core.
    ("svid_request/ecdsa", Target::AtMost(1e9 / 9_500.0)),
    ("svid_request/rsa2048", Target::Floors(1.02)),
    ("svid_sds", Target::AtMost(1e9 / 22_000.0)),
    ("svid_rotation", Target::AtMost(1e9)),
];

/// Runs the bench target with the scenario's name.
pub fn run(setting: &Setting, name: &str) -> Result<Vec<Figure>> {
    Ok(figures(name, &cargo_bench::medians(&setting.target, name)?))
}

/// Watch lines into the registry.
pub fn ingest(_: &Setting, scenario: &str) -> Result<Vec<Figure>> {
    let found = cargo_bench::printed(scenario)?;
    let get = |name: &str| found[name].as_f64().with_context(|| format!("the bench has not measured {name}"));
    let figure = |metric, value, unit| Figure::new(scenario, metric, value, unit);
    Ok(vec![
        figure("endpoints of slices, on one core", get("endpoints_per_second")?, "/s")
            .beside(get("floor_endpoints_per_second")?)
            .target(Target::AtLeast(800_000.0)),
        figure("memory of an endpoint", get("bytes_per_endpoint")?, "B").target(Target::AtMost(120.0)),
        figure("pods, on one core", get("pods_per_second")?, "/s"),
        figure("memory of a pod", get("bytes_per_pod")?, "B"),
    ])
}

fn figures(scenario: &str, medians: &Medians) -> Vec<Figure> {
    let parts = |id: &str| {
        let mut parts = id.splitn(3, '/').map(str::to_owned);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next())
    };
    let mut found = Vec::new();
    for (id, nanoseconds) in medians {
        let (group, function, parameter) = parts(id);
        if function.starts_with("floor") {
            continue;
        }
        let floor = medians.iter().find(|(other, _)| {
            let (g, f, p) = parts(other);
            g == group && f.starts_with("floor") && p == parameter
        });
        let metric = match &parameter {
            Some(parameter) => format!("{group}/{parameter}"),
            None => group,
        };
        let name = if function == "landbridge" { metric.clone() } else { format!("{metric} {function}") };
        let mut figure = Figure::new(scenario, &name, *nanoseconds, "ns");
        if let Some((_, floor)) = floor {
            figure = figure.beside(*floor);
        }
        if let Some((_, target)) = TARGETS.iter().find(|(of, _)| *of == name) {
            figure = figure.target(*target);
        }
        found.push(figure);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_beside_the_floor_of_its_group_and_parameter() {
        let medians = [
            ("encode_eds/floor_prost_encode/10x10", 10_000.0),
            ("encode_eds/floor_prost_encode/1000x1", 1_000.0),
            ("encode_eds/landbridge/10x10", 5_000.0),
            ("alone/landbridge", 7.0),
        ];
        let found = figures("encode", &medians.map(|(id, ns)| (id.to_owned(), ns)).into());
        let shown: Vec<_> = found.iter().map(|f| (f.metric.as_str(), f.value, f.floor, f.met)).collect();
        assert_eq!(
            shown,
            [("alone", 7.0, None, None), ("encode_eds/10x10", 5_000.0, Some(10_000.0), Some(false))]
        );
    }
}
