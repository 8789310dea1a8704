//! What the gate runs besides the tests: each library in each shape, each example, each set of loom models.
//!
//! `.ci/run` names one part, and gets a line of cargo's arguments for each thing to run. Without a name, all parts.

use backplane_tests::{plan, workspace::Workspace};

fn main() {
    let workspace = Workspace::read();
    let parts = [
        ("shapes", plan::shapes(&workspace)),
        ("examples", plan::examples(&workspace)),
        ("loom", plan::loom(&workspace)),
    ];
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for (part, lines) in parts {
        if asked.is_empty() {
            println!("\n{part}");
        }
        if asked.is_empty() || asked.iter().any(|name| name == part) {
            lines.iter().for_each(|line| println!("{line}"));
        }
    }
}
