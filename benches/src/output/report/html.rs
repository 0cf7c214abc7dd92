//! Reports as one page that needs nothing beside it: no network, no script.

use super::charts::Chart;
use super::compare::Comparison;
use super::markdown::about;
use super::rows::{HEADS, by_layout, cells, title};
use crate::output::artifact::Artifact;

/// On a narrow page each row of a table becomes a card, whose cells have their headings beside
/// them.
const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fff;--ink:#1a1a1a;--soft:#595959;--rule:#d0d0d0;--card:#f6f6f6}\
@media(prefers-color-scheme:dark){:root{--page:#161616;--ink:#e8e8e8;--soft:#b0b0b0;--rule:#4a4a4a;--card:#202020}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:12px;max-width:1180px;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}\
h1{font-size:1.5em}h2{font-size:1.25em;border-top:1px solid var(--rule);padding-top:.8em}h3{font-size:1.05em;margin-bottom:.3em}\
ul{padding-left:1.2em;color:var(--soft)}.warning{color:#c62828}@media(prefers-color-scheme:dark){.warning{color:#ff8a80}}\
.charts{display:flex;flex-wrap:wrap;gap:12px}figure{margin:0;padding:6px;background:var(--card);border-radius:6px;width:376px;max-width:100%}\
figure svg{display:block;width:100%;height:auto}figcaption{font-size:13px;color:var(--soft)}\
table{border-collapse:collapse;width:100%}th,td{padding:3px 8px;text-align:right;border-bottom:1px solid var(--rule)}\
th:nth-child(2),td:nth-child(2),th:nth-child(3),td:nth-child(3){text-align:left}\
@media(max-width:720px){thead{display:none}tr{display:block;margin:0 0 10px;padding:4px 8px;background:var(--card);border-radius:6px}\
td,td:nth-child(2),td:nth-child(3){display:flex;justify-content:space-between;gap:12px;text-align:right;border:0;padding:1px 0}\
td::before{content:attr(data-head);color:var(--soft);text-align:left}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = String::from("<table><thead><tr>");
    heads.iter().for_each(|head| text += &format!("<th>{head}</th>"));
    text += "</tr></thead><tbody>";
    for row in rows {
        text += "<tr>";
        for (head, cell) in heads.iter().zip(row) {
            text += &format!("<td data-head=\"{head}\">{}</td>", escaped(&cell));
        }
        text += "</tr>";
    }
    text + "</tbody></table>\n"
}

/// The page. `charts` has those of each report.
pub(crate) fn page(artifacts: &[Artifact], charts: &[Vec<Chart>], comparison: Option<&Comparison>) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>kvrail-bench</title><style>{STYLE}</style></head><body>\n<h1>kvrail-bench</h1>\n"
    );
    if let Some(comparison) = comparison {
        text += &format!("<h2>{}</h2>\n", escaped(&comparison.title()));
        let rows = comparison.rows.iter().map(|row| row.cells().into());
        text += &table(&super::compare::HEADS, rows);
        text += &list(&comparison.notes);
    }
    for (artifact, charts) in artifacts.iter().zip(charts) {
        text += &format!("<h2>{}</h2>\n{}", escaped(&artifact.name), list(&about(artifact)));
        text += "<div class=\"charts\">\n";
        for chart in charts {
            // Two pictures on one page may not use the same ids, and these use none.
            text += &format!(
                "<figure>{}<figcaption>{}</figcaption></figure>\n",
                chart.svg.replacen(
                    "<svg ",
                    &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(&chart.caption)),
                    1
                ),
                escaped(&chart.caption)
            );
        }
        text += "</div>\n";
        for rows in by_layout(&artifact.report.results) {
            text += &format!("<h3>{}</h3>\n", escaped(&title(&rows[0])));
            text += &table(&HEADS, rows.iter().map(|row| cells(row).into()));
        }
    }
    text + "</body></html>\n"
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let item = |line: &String| {
        let class = if line.starts_with("WARNING") || line.starts_with("PARTIAL") {
            " class=\"warning\""
        } else {
            ""
        };
        format!("<li{class}>{}</li>", escaped(line))
    };
    format!("<ul>{}</ul>\n", lines.iter().map(item).collect::<String>())
}
