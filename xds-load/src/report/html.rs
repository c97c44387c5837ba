//! The report as a page of its own: no other file and no network is needed to read it.

use std::fmt::Write as _;

use super::{
    Report, Unit,
    metric::distributions,
    plot::{Axis, Line, Plot},
};
use crate::run::{Outcome, Sample};

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1a1a1a;--soft:#666;--grid:#e3e3e3;--bad:#b3261e;--good:#146c2e}
@media(prefers-color-scheme:dark){:root{--back:#161719;--text:#e8e8e8;--soft:#9a9a9a;--grid:#33363a;--bad:#ff8a80;--good:#7bd88f}}
body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1.5rem}
figure{margin:0}figcaption{font-weight:600}.legend{margin:.2rem 0;font-size:.85rem}
.legend span{margin-right:.8rem;white-space:nowrap}.legend span::before{content:'';display:inline-block;width:.9rem;height:.2rem;margin-right:.3rem;
vertical-align:middle;background:currentColor}
svg{width:100%;height:auto}svg text{font-size:15px;fill:var(--soft)}.grid{stroke:var(--grid);fill:none}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.l0{color:#3b7dd8}.l1{color:#d9822b}.l2{color:#2e9e6b}.l3{color:#b455c8}.l4{color:#c94f4f}.l5{color:#8a8d2a}.l6{color:#3aa6b9}.l7{color:#8c6bd8}
pre{overflow-x:auto;white-space:pre-wrap;font-size:.82rem}.bad{color:var(--bad)}.good{color:var(--good)}
table{border-collapse:collapse;font-size:.85rem}td,th{padding:.1rem .8rem .1rem 0;text-align:left}td:last-child{text-align:right;
font-variant-numeric:tabular-nums}summary{cursor:pointer}
";

/// The page.
pub fn html(report: &Report, outcome: &Outcome) -> String {
    let verdict = if report.is_good() { "<b class=good>ok</b>" } else { "<b class=bad>FAILED</b>" };
    let scenario = &report.scenario;
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>xds-load</title>\
         <style>{STYLE}</style><h1>{} {verdict}</h1><p>{} proxies, {:?}, against {} on {} CPUs, Linux {}</p>",
        report.tool,
        scenario.proxies,
        scenario.protocol,
        escape(&scenario.server),
        report.machine.cpus,
        escape(&report.machine.kernel),
    );
    // A string takes everything.
    for problem in report.problems.iter().chain(&report.broken) {
        _ = write!(page, "<p class=bad>{}</p>", escape(problem));
    }
    page.push_str("<div class=plots>");
    plots(outcome).iter().for_each(|plot| page.push_str(&plot.figure()));
    _ = write!(page, "</div><h2>Summary</h2><pre>{}</pre>", escape(&report.to_string()));
    page.push_str("<details><summary>All metrics</summary><table>");
    for metric in &report.metrics {
        _ = write!(page, "<tr><td>{}<td>{metric}", metric.name);
    }
    page.push_str("</table></details></html>\n");
    page
}

/// Those that have something to show.
fn plots(outcome: &Outcome) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (title, prefix) in [("Until a change is at a proxy", "change."), ("Until a proxy is configured", "")]
    {
        let lines: Vec<_> = distributions(outcome)
            .into_iter()
            .filter(|(name, durations)| {
                durations.count() > 0
                    && !name.starts_with("change.any")
                    && name.starts_with(prefix)
                    && (prefix == "change.") == name.starts_with("change.")
            })
            .map(|(name, durations)| {
                let points =
                    durations.distribution().into_iter().map(|(time, share)| (share, time.as_secs_f64()));
                Line { name, points: points.collect() }
            })
            .collect();
        if !lines.is_empty() {
            plots.push(Plot { title, x: Axis::Share, y: Axis::Decades(Unit::Seconds), lines });
        }
    }
    let samples = &outcome.samples;
    let over_time = |title, unit, lines: Vec<(&str, Vec<(f64, f64)>)>| Plot {
        title,
        x: Axis::Linear(Unit::Seconds),
        y: Axis::Linear(unit),
        lines: lines.into_iter().map(|(name, points)| Line { name: name.to_owned(), points }).collect(),
    };
    let of = |get: &dyn Fn(&Sample) -> f64| samples.iter().map(|s| (s.seconds, get(s))).collect::<Vec<_>>();
    plots.push(over_time("Configured proxies", Unit::Count, vec![("proxies", of(&|s| s.configured as f64))]));
    plots.push(over_time(
        "Bytes per second",
        Unit::Bytes,
        vec![("received", rate(&of(&|s| s.received as f64)))],
    ));
    let mut cpu = vec![("xds-load", rate(&of(&|s| s.own_cpu)))];
    if outcome.scenario.server_pid.is_some() {
        cpu.push(("server", rate(&of(&|s| s.server_cpu.unwrap_or(0.0)))));
        let rss = of(&|s| s.server_rss.unwrap_or(0) as f64);
        plots.push(over_time("Memory of the server", Unit::Bytes, vec![("RSS", rss)]));
    }
    plots.push(over_time("Cores in use", Unit::Count, cpu));
    plots
}

/// How much came in each second.
fn rate(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = |pair: &[(f64, f64)]| {
        let [(t0, v0), (t1, v1)] = pair else { return None };
        (t1 > t0).then(|| (*t1, ((v1 - v0) / (t1 - t0)).max(0.0)))
    };
    points.windows(2).filter_map(step).collect()
}

/// Text that may stand anywhere in the page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escape, rate};

    #[test]
    fn rates_are_differences_and_nothing_is_markup() {
        assert_eq!(rate(&[(0.0, 5.0), (2.0, 9.0), (2.0, 9.0), (3.0, 9.0)]), [(2.0, 2.0), (3.0, 0.0)]);
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}
