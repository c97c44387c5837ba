//! `report.html`: the timeline as a picture in a page that needs nothing else, in light and in dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::Report;
use crate::load::Sample;

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 220.0;
const LATENCY_TOP: f64 = TOP + HEIGHT + 46.0;
const LATENCY_HEIGHT: f64 = 90.0;
/// One column of the picture.
const BUCKET_MS: f64 = 250.0;
/// Who answered, from the bottom of a column up, and the class of its colour.
const SERIES: [(&str, &str); 5] = [
    ("east/backend-a", "e1"),
    ("east/backend-b", "e2"),
    ("west/backend-a", "w1"),
    ("west/backend-b", "w2"),
    ("failed", "bad"),
];

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--soft:#667085;--line:#d8dde6;--band:#f3f5f9;\
--e1:#1f6feb;--e2:#79b0ff;--w1:#d97706;--w2:#f5b759;--bad:#d1242f;--ok:#1a7f37}\
@media(prefers-color-scheme:dark){:root{--bg:#0f141b;--fg:#e4e9f1;--soft:#93a0b4;--line:#2b3442;--band:#171e28;\
--e1:#4c8dff;--e2:#9cc3ff;--w1:#f0932b;--w2:#f8c98a;--bad:#ff5c66;--ok:#4cc36b}}\
body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1160px;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}p{color:var(--soft);margin:.3rem 0 1rem}svg{width:100%;height:auto}\
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .t{fill:var(--fg);font-weight:600}\
.e1{fill:var(--e1)}.e2{fill:var(--e2)}.w1{fill:var(--w1)}.w2{fill:var(--w2)}.bad{fill:var(--bad)}\
.band{fill:var(--band)}.grid{stroke:var(--line)}.p50,.p99{fill:none;stroke-width:1.5}.p50{stroke:var(--e1)}.p99{stroke:var(--w1)}\
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.kept{color:var(--ok)}.broken{color:var(--bad);font-weight:600}";

/// The page. `samples` are sorted by the time they were sent.
pub fn page(report: &Report, samples: &[Sample]) -> String {
    let verdict = if report.kept() { "every promise kept" } else { "a promise was broken" };
    let versions: Vec<String> =
        report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>landbridge: two clouds</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>Two clouds of stock Envoys under one steady load: {verdict}</h1>\n\
         <p>{} requests, {} failed. {} a second from a pod in <b>east</b>; each column is {BUCKET_MS} ms, its colours are who answered. {}</p>\n\
         {}\n{}\n{}\n</body></html>\n",
        report.requests_total,
        report.requests_failed,
        report.requests_per_second,
        escape(&versions.join(", ")),
        picture(report, samples),
        promises(report),
        phases(report),
    )
}

fn picture(report: &Report, samples: &[Sample]) -> String {
    let end = report.phases.iter().map(|phase| phase.to_ms).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT) / end;
    let x = |ms: f64| LEFT + ms * scale;
    let bottom = LATENCY_TOP + LATENCY_HEIGHT;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"who answered, over time\">",
        bottom + 24.0
    );
    bands(&mut svg, report, x);
    columns(&mut svg, report, samples, x, scale);
    latency(&mut svg, samples, x);
    for second in (0..=(end / 1000.0) as u32).step_by(5) {
        let at = x(f64::from(second) * 1000.0);
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
            bottom + 16.0
        );
    }
    let mut at = LEFT;
    for (name, class) in SERIES {
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{at}\" y=\"4\" width=\"10\" height=\"10\"/><text x=\"{}\" y=\"13\">{name}</text>",
            at + 15.0
        );
        at += 120.0;
    }
    svg + "</svg>"
}

/// Phases as bands behind the columns, with a number that the table below explains.
fn bands(svg: &mut String, report: &Report, x: impl Fn(f64) -> f64) {
    for (index, phase) in report.phases.iter().enumerate() {
        let (from, to) = (x(phase.from_ms), x(phase.to_ms));
        let label = phase.title.split_whitespace().next().unwrap_or_default();
        let class = if index % 2 == 0 { "band" } else { "none" };
        let _ = write!(
            svg,
            "<g><title>{}</title><rect class=\"{class}\" fill-opacity=\"{}\" x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"/>\
             <text class=\"t\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text></g>",
            escape(phase.title),
            if index % 2 == 0 { 1 } else { 0 },
            TOP - 26.0,
            to - from,
            LATENCY_TOP + LATENCY_HEIGHT - TOP + 26.0,
            f64::midpoint(from, to),
            TOP - 10.0,
        );
    }
}

fn columns(svg: &mut String, report: &Report, samples: &[Sample], x: impl Fn(f64) -> f64, scale: f64) {
    let full = f64::from(report.requests_per_second) * BUCKET_MS / 1000.0;
    let mut buckets: BTreeMap<u64, [usize; SERIES.len()]> = BTreeMap::new();
    for sample in samples {
        let series = match sample.failed() {
            true => SERIES.len() - 1,
            false => SERIES.iter().position(|(name, _)| *name == sample.by).unwrap_or(SERIES.len() - 1),
        };
        buckets.entry(bucket(sample)).or_default()[series] += 1;
    }
    for (column, counts) in buckets {
        let mut y = TOP + HEIGHT;
        for ((name, class), count) in SERIES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            // A single failed request must be seen.
            let height = (count as f64 / full * HEIGHT).max(if *name == "failed" { 4.0 } else { 0.0 });
            y -= height;
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{name}: {count}</title></rect>",
                x(column as f64 * BUCKET_MS),
                (BUCKET_MS * scale - 0.6).max(0.6),
            );
        }
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}/s</text><line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{}\" y2=\"{}\"/>",
        LEFT - 6.0,
        TOP + 4.0,
        report.requests_per_second,
        TOP + HEIGHT,
        TOP + HEIGHT
    );
}

/// Median and worst of each column, on a logarithmic scale from 0.1 ms to 2 s (the client's patience).
fn latency(svg: &mut String, samples: &[Sample], x: impl Fn(f64) -> f64) {
    let y = |ms: f64| {
        let share = (ms.clamp(0.1, 2000.0) / 0.1).log10() / (2000.0_f64 / 0.1).log10();
        LATENCY_TOP + LATENCY_HEIGHT * (1.0 - share)
    };
    for (label, ms) in [("1 ms", 1.0), ("10 ms", 10.0), ("100 ms", 100.0), ("1 s", 1000.0)] {
        let at = y(ms);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut buckets: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        buckets.entry(bucket(sample)).or_default().push(sample.took.as_secs_f64() * 1000.0);
    }
    let (mut median, mut worst) = (String::new(), String::new());
    for (column, mut took) in buckets {
        took.sort_by(f64::total_cmp);
        let at = x((column as f64 + 0.5) * BUCKET_MS);
        let _ = write!(median, "{at:.1},{:.1} ", y(took[took.len() / 2]));
        let _ = write!(worst, "{at:.1},{:.1} ", y(took[took.len() - 1]));
    }
    let _ = write!(
        svg,
        "<polyline class=\"p99\" points=\"{worst}\"/><polyline class=\"p50\" points=\"{median}\"/>\
         <text x=\"{LEFT}\" y=\"{}\">time to answer: median (blue) and slowest (orange) of each column</text>",
        LATENCY_TOP - 8.0
    );
}

fn bucket(sample: &Sample) -> u64 {
    (sample.sent.as_secs_f64() * 1000.0 / BUCKET_MS) as u64
}

fn promises(report: &Report) -> String {
    let rows: String = report
        .promises
        .iter()
        .map(|promise| (promise, "kept", "broken"))
        .chain(report.targets.iter().map(|target| (target, "met", "missed")))
        .map(|(promise, kept, not)| {
            let (class, word) = if promise.kept { ("kept", kept) } else { ("broken", not) };
            let (what, seen) = (escape(&promise.promise), escape(&promise.seen));
            format!("<tr><td>{what}</td><td>{seen}</td><td class=\"{class}\">{word}</td></tr>")
        })
        .collect();
    format!("<table><tr><th>promise or target</th><th>seen</th><th></th></tr>{rows}</table>")
}

fn phases(report: &Report) -> String {
    let rows: String = report
        .phases
        .iter()
        .map(|phase| {
            let by: Vec<String> =
                phase.answered_by.iter().map(|(by, count)| format!("{by} {count}")).collect();
            format!(
                "<tr><td>{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td><td>{}</td></tr>",
                escape(phase.title),
                (phase.to_ms - phase.from_ms) / 1000.0,
                phase.requests,
                phase.failed,
                phase.p50_ms,
                phase.p99_ms,
                escape(&by.join(", "))
            )
        })
        .collect();
    format!(
        "<table><tr><th>phase</th><th class=\"n\">seconds</th><th class=\"n\">requests</th><th class=\"n\">failed</th>\
         <th class=\"n\">p50 ms</th><th class=\"n\">p99 ms</th><th>answered by</th></tr>{rows}</table>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
