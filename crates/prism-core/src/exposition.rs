//! Metrics as text, in the form that every scraper reads.

use std::fmt::Write;

/// Of the Prometheus text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Turns OpenMetrics text, as our metrics library writes it, into the older Prometheus text format.
///
/// They differ in what stands in a comment: the older one names a counter with its suffix `_total`, knows
/// no kind `info`, no units and no mark at the end. A scraper that is promised one and given the other
/// loses the kinds of counters, or refuses the whole page.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 256);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Comes before the kind, which decides about the name.
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            // Writing to a text does not fail.
            if let Some((_, described)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {described}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_are_those_of_the_older_format() {
        let open_metrics = "# HELP build What is running.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
             # HELP calls Calls answered.\n# TYPE calls counter\ncalls_total{a=\"b # c\"} 7\n\
             # HELP took_seconds Time.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\n\
             took_seconds_sum 1.5\ntook_seconds_count 2\ntook_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let expected = "# HELP build_info What is running.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
             # HELP calls_total Calls answered.\n# TYPE calls_total counter\ncalls_total{a=\"b # c\"} 7\n\
             # HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
             took_seconds_sum 1.5\ntook_seconds_count 2\ntook_seconds_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(prometheus_text(open_metrics), expected);
    }
}
