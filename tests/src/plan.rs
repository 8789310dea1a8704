//! What the gate runs besides the tests, as lines of cargo's arguments.
//!
//! Made from the workspace as it is, so that a new crate, feature or example is in the gate as soon as it exists.

use crate::workspace::{Crate, Workspace};

/// Each library bare, with each feature alone, and with all.
pub fn shapes(workspace: &Workspace) -> Vec<String> {
    let mut shapes = Vec::new();
    for Crate { name, features, .. } in workspace.crates.iter().filter(|member| member.published) {
        let bare = format!("--package {name} --lib --no-default-features");
        shapes.extend(features.iter().map(|feature| format!("{bare} --features {feature}")));
        // With one feature or none, all of them is nothing new.
        shapes.extend((features.len() > 1).then(|| format!("{bare} --all-features")));
        shapes.push(bare);
    }
    shapes
}

/// Every example, with the features it needs.
pub fn examples(workspace: &Workspace) -> Vec<String> {
    let mut examples = Vec::new();
    for member in &workspace.crates {
        for example in &member.examples {
            let mut line = format!("--package {} --example {}", member.name, example.name);
            if !example.needs.is_empty() {
                line += &format!(" --features {}", example.needs.join(","));
            }
            examples.push(line);
        }
    }
    examples
}

/// Every crate that has a test named `loom`.
pub fn loom(workspace: &Workspace) -> Vec<String> {
    let modelled = workspace.crates.iter().filter(|member| member.tests.iter().any(|test| test == "loom"));
    modelled.map(|member| format!("--package {} --test loom", member.name)).collect()
}
