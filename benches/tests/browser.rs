//! The page of `report` in a real browser: its figures are those of the reports, and it is legible
//! on a wide and on a narrow page, light and dark.
//!
//! The browser is Debian's `chromium`, headless. Without it the test is skipped, loudly; with
//! `KVRAIL_BROWSER_TESTS=required` that is a failure. `KVRAIL_SCREENSHOTS=DIR` keeps pictures.

mod common;
#[path = "report/runs.rs"]
mod runs;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{run, wait};
use runs::{Folder, ladder, shown, sweep};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// Collects what the page in the frame shows, as JSON in the text of an element.
const PROBE: &str = r#"
const frame = document.getElementById("frame");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const shown = [...page.querySelectorAll("td")].map(td => [td.dataset.head, td.innerText]);
  const sizes = [...page.querySelectorAll("svg text, td, li, figcaption")].map(node => {
    const size = parseFloat(view.getComputedStyle(node).fontSize);
    return node.getScreenCTM ? size * node.getScreenCTM().a : size;
  });
  const colour = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
  const style = (node, name) => colour(view.getComputedStyle(node)[name]);
  const texts = [...page.querySelectorAll("svg text")];
  document.getElementById("out").textContent = JSON.stringify({
    width: view.innerWidth,
    needed: page.documentElement.scrollWidth,
    least: Math.min(...sizes),
    charts: page.querySelectorAll("figure svg").length,
    page: style(page.body, "backgroundColor"),
    ink: style(page.body, "color"),
    chart: style(texts[0], "fill"),
    bars: style(page.querySelector("svg rect[fill='#0072B2']"), "fill"),
    outside: texts.filter(text => {
      const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
      return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
    }).map(text => text.textContent),
    shown,
  });
});
frame.srcdoc = document.getElementById("page").textContent;
"#;

/// What the page shows in a frame of this width.
fn show(folder: &Folder, html: &str, width: u32, dark: bool) -> Value {
    let escaped = html.replace('&', "&amp;").replace('<', "&lt;");
    let wrapper = format!(
        "<!doctype html><iframe id=frame width={width} height=900 style=\"border:0\"></iframe>\
         <textarea id=page hidden>{escaped}</textarea><pre id=out></pre><script>{PROBE}</script>"
    );
    let path = folder.path("wrapper.html");
    fs::write(&path, wrapper).unwrap();
    let dom =
        chromium(folder, dark, &["--virtual-time-budget=5000", "--dump-dom", &format!("file://{path}")]);
    let out = dom.rsplit_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (text, _) = out.unwrap_or_else(|| panic!("the browser shows no page: {dom}"));
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn chromium(folder: &Folder, dark: bool, args: &[&str]) -> String {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
    command.arg(format!("--user-data-dir={}", folder.path("profile")));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    // A file of its own, because a full pipe would stop the browser.
    let path = folder.path("dom.html");
    let out = fs::File::create(&path).unwrap();
    let child = command.args(args).stdout(out).stderr(Stdio::null()).spawn().unwrap();
    let output = wait(child, SOON);
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(path).unwrap()
}

fn installed() -> bool {
    let mut command = Command::new("chromium");
    let there = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        assert!(
            std::env::var("KVRAIL_BROWSER_TESTS").as_deref() != Ok("required"),
            "this host has no chromium: apt-get install chromium"
        );
        eprintln!("SKIPPED: this host has no chromium, so no page was looked at (apt-get install chromium)");
    }
    there
}

/// The contrast of two colours by the W3C's formula, from 1 to 21.
fn contrast(a: &Value, b: &Value) -> f64 {
    let light = |colour: &Value| {
        let part = |at: usize| {
            let part = colour[at].as_f64().unwrap() / 255.0;
            if part <= 0.039_28 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2)
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn the_page_shows_the_figures_of_the_reports_wide_and_narrow_light_and_dark() {
    if !installed() {
        return;
    }
    let folder = Folder::new();
    let files = [folder.write("ladder", ladder()), folder.write("sweep", sweep())];
    let page = folder.path("page.html");
    let output = run(&["report", &files[0], &files[1], "--html", &page], SOON);
    assert!(output.status.success(), "{output:?}");
    let html = fs::read_to_string(&page).unwrap();
    let mut expected = Vec::new();
    for report in [ladder(), sweep()] {
        for row in report["results"].as_array().unwrap() {
            expected.push(shown(row));
        }
    }
    for (width, dark) in [(1200, false), (1200, true), (400, false), (400, true)] {
        let seen = show(&folder, &html, width, dark);
        let what = format!("{width} pixels, dark: {dark}");
        let shown = seen["shown"].as_array().unwrap().iter();
        let rates: Vec<_> =
            shown.filter(|cell| cell[0] == "GB/s").map(|cell| cell[1].as_str().unwrap().to_owned()).collect();
        assert_eq!(rates, expected, "{what}");
        assert_eq!(seen["width"], width, "{what}");
        assert!(seen["needed"].as_u64().unwrap() <= width.into(), "{what}: it is {} wide", seen["needed"]);
        assert!(seen["least"].as_f64().unwrap() >= 10.5, "{what}: text of {} pixels", seen["least"]);
        assert!(seen["charts"].as_u64() >= Some(5), "{what}");
        assert_eq!(seen["outside"], serde_json::json!([]), "{what}: text outside of its chart");
        for colours in ["ink", "chart"] {
            let contrast = contrast(&seen[colours], &seen["page"]);
            assert!(contrast >= 7.0, "{what}: {colours} has a contrast of {contrast:.1}");
        }
        assert!(contrast(&seen["bars"], &seen["page"]) >= 3.0, "{what}: bars");
        let bright = seen["page"][0].as_f64().unwrap() > 128.0;
        assert_eq!(bright, !dark, "{what}");
        if let Some(to) = std::env::var_os("KVRAIL_SCREENSHOTS") {
            let name = format!("{width}-{}.png", if dark { "dark" } else { "light" });
            let picture = std::path::Path::new(&to).join(name);
            let size = format!("--window-size={width},2400");
            let shot = format!("--screenshot={}", picture.display());
            chromium(&folder, dark, &[&size, &shot, &format!("file://{page}")]);
        }
    }
}
